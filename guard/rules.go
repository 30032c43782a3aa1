package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// State is how it stands with a rule that queues packets, as to SYN/ACKs made here.
type State string

// The states.
const (
	Open       State = "open"         // it may queue them
	Shielded   State = "shielded"     // a carve-out right before it keeps them out
	Harmless   State = "harmless"     // it never queues them with their request socket
	OutOfReach State = "out of reach" // it may queue them, and no carve-out can be put before it
)

// Point is a rule that queues packets.
type Point struct {
	Rule   string   `json:"rule"`   // "inet filter output handle 7", "iptables filter OUTPUT rule 3"
	Queues string   `json:"queues"` // "0", "0-3", "by the packet"
	Bypass bool     `json:"bypass"` // packets pass when nobody reads the queue
	Fanout bool     `json:"fanout"` // the queue is chosen by CPU
	Hooks  []string `json:"hooks"`  // from which packets come to it: "output"
	State  State    `json:"state"`
	Why    string   `json:"why,omitempty"`    // it is harmless, or out of reach
	Costs  []string `json:"costs,omitempty"`  // what the carve-out costs besides
	Passed uint64   `json:"passed,omitempty"` // SYN/ACKs that the carve-out accepted
}

// Rules are the rules that queue packets in one network namespace.
type Rules struct {
	Points []Point `json:"points"`
	// Stale counts carve-outs whose rule is gone or has changed.
	Stale int `json:"stale"`

	snapshot *snapshot
	nft      []change
	xtables  []*xtables
}

// Open reports whether any of them may queue SYN/ACKs made here.
func (r *Rules) Open() bool {
	return slices.ContainsFunc(r.Points, func(p Point) bool { return p.State == Open || p.State == OutOfReach })
}

// Passed counts the SYN/ACKs that carve-outs have accepted.
func (r *Rules) Passed() uint64 {
	var n uint64
	for _, p := range r.Points {
		n += p.Passed
	}
	return n
}

// ReadRules finds every rule that queues packets in the network namespace of the
// calling thread, in nftables and in the older tables of iptables, which iptables-save
// reads, and changes nothing.
func ReadRules(ctx context.Context) (*Rules, error) {
	n, err := openNFT()
	if err != nil {
		return nil, err
	}
	defer n.Close()
	s, err := n.read()
	if err != nil {
		return nil, err
	}
	r := &Rules{snapshot: s}
	if r.Points, r.nft, err = s.plan(true); err != nil {
		return nil, err
	}
	for _, c := range r.nft {
		if c.kind == unix.NFT_MSG_DELRULE {
			r.Stale++
		}
	}
	if r.xtables, err = readXTables(ctx); err != nil {
		return nil, err
	}
	for _, x := range r.xtables {
		points, stale := x.plan()
		r.Points = append(r.Points, points...)
		r.Stale += stale
	}
	return r, nil
}

// ApplyRules puts a carve-out right before each rule that may queue SYN/ACKs made here,
// and takes away those that are of no use any more. It returns how it stands afterwards.
//
// Changes of nftables are one transaction that fails if anybody changes the ruleset
// meanwhile, and is tried again. Those of iptables are one for each table.
func ApplyRules(ctx context.Context) (*Rules, error) {
	return settle(ctx, func(r *Rules) []change { return r.nft }, (*xtables).script)
}

// RemoveRules takes all carve-outs away, and returns what stands open afterwards.
func RemoveRules(ctx context.Context) (*Rules, error) {
	return settle(ctx, func(r *Rules) []change { return r.snapshot.removals() }, (*xtables).removal)
}

// removals take the carve-outs of nftables away.
func (s *snapshot) removals() []change {
	var list []change
	for i := range s.rules {
		if s.rules[i].ours() {
			list = append(list, s.rules[i].removal())
		}
	}
	return list
}

// settle makes the changes that a reading of the rules asks for.
func settle(ctx context.Context, nft func(*Rules) []change, script func(*xtables) string) (*Rules, error) {
	const tries = 20
	for range tries {
		r, err := ReadRules(ctx)
		if err != nil {
			return nil, err
		}
		switch err := r.commit(nft(r)); {
		case errors.Is(err, errChanged):
			continue
		case err != nil:
			return nil, fmt.Errorf("change nftables: %w", err)
		}
		for _, x := range r.xtables {
			if err := x.restore(ctx, script(x)); err != nil {
				return nil, err
			}
		}
		return ReadRules(ctx)
	}
	return nil, ErrBusyRules
}

// commit makes changes of nftables. Up to 5.16 counters are a module of their own
// (nft_counter), without which there are none.
func (r *Rules) commit(changes []change) error {
	if len(changes) == 0 {
		return nil
	}
	err := commit(r.snapshot.generation, changes)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	_, uncounted, planErr := r.snapshot.plan(false)
	if planErr != nil {
		return errors.Join(err, planErr)
	}
	return commit(r.snapshot.generation, uncounted)
}
