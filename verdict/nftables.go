package verdict

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Errors of [Ruleset.Install] and [Ruleset.Remove].
var (
	// ErrForeignTable is the error for a table of our name that we did not make.
	ErrForeignTable = errors.New("the table is not one of inquest's")
	// ErrNoQueueing is the error for a kernel that cannot queue packets by nftables:
	// neither by nft_queue nor by the target of iptables through nft_compat.
	ErrNoQueueing = errors.New("the kernel's nftables cannot queue packets (no nft_queue, or one of nft_ct, nft_reject_inet is missing)")
	// ErrNoNFTables is the error for a kernel without nf_tables.
	ErrNoNFTables = errors.New("the kernel has no nftables")
	// ErrPermission is the error for a process without CAP_NET_ADMIN.
	ErrPermission = errors.New("CAP_NET_ADMIN is needed")
)

// owner is the comment by which a table of ours is known.
const owner = "inquest verdict"

// Way is how a kernel is told to queue.
type Way string

// The ways.
const (
	ByQueue Way = "nft_queue" // the expression of nftables
	ByXT    Way = "xt"        // the target of iptables, through nft_compat: the kernel has no nft_queue
)

// Install makes the table, or gives one that an earlier daemon left other rules, in one
// transaction: no packet sees half of it. It returns how the kernel queues.
func (r *Ruleset) Install(options ...nftables.ConnOption) (Way, error) {
	way, err := r.install(options)
	if err != nil {
		return "", fmt.Errorf("install table inet %s: %w", r.Table, err)
	}
	return way, nil
}

func (r *Ruleset) install(options []nftables.ConnOption) (Way, error) {
	conn, err := nftables.New(options...)
	if err != nil {
		return "", explained(err)
	}
	if _, err := r.state(conn); err != nil {
		return "", err
	}
	if err = r.write(conn); err == nil {
		return ByQueue, nil
	}
	// An expression that the kernel does not have is ENOENT.
	if !errors.Is(err, unix.ENOENT) {
		return "", explained(err)
	}
	switch err = r.withXT().write(conn); {
	case err == nil:
		return ByXT, nil
	case errors.Is(err, unix.ENOENT):
		return "", ErrNoQueueing
	}
	return "", explained(err)
}

// StopQueueing takes the rules that queue out of the table and leaves the others, so that
// packets which wait in a queue can still get their verdicts: with the table's hooks the
// kernel throws them away too (nf_queue_nf_hook_drop).
func (r *Ruleset) StopQueueing(options ...nftables.ConnOption) error {
	conn, err := nftables.New(options...)
	if err == nil {
		err = r.without(func(a action) bool { _, queues := a.(enqueue); return queues }).update(conn)
	}
	if err != nil {
		return fmt.Errorf("stop queueing in table inet %s: %w", r.Table, explained(err))
	}
	return nil
}

// Remove deletes the table. It is no error if there is none.
func (r *Ruleset) Remove(options ...nftables.ConnOption) error {
	err := r.remove(options)
	if err != nil {
		return fmt.Errorf("remove table inet %s: %w", r.Table, err)
	}
	return nil
}

func (r *Ruleset) remove(options []nftables.ConnOption) error {
	conn, err := nftables.New(options...)
	if err != nil {
		return explained(err)
	}
	if there, err := r.state(conn); err != nil || !there {
		return err
	}
	conn.DelTable(r.table())
	err = conn.Flush()
	if errors.Is(err, unix.ENOENT) { // gone meanwhile
		return nil
	}
	return explained(err)
}

// Installed reports whether the table is there. Somebody who flushes the whole
// ruleset takes ours with it.
func (r *Ruleset) Installed(options ...nftables.ConnOption) (bool, error) {
	conn, err := nftables.New(options...)
	if err != nil {
		return false, explained(err)
	}
	return r.state(conn)
}

func (r *Ruleset) table() *nftables.Table {
	return &nftables.Table{Name: r.Table, Family: nftables.TableFamilyINet}
}

// state reports whether the table is there, with ErrForeignTable if it is not ours.
func (r *Ruleset) state(conn *nftables.Conn) (there bool, err error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, explained(err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == r.Table }) {
		return false, nil
	}
	rules, err := conn.GetRules(r.table(), &nftables.Chain{Name: acceptedChain})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return true, explained(err)
	}
	for _, rule := range rules {
		if comment, _ := userdata.GetString(rule.UserData, userdata.TypeComment); comment == owner {
			return true, nil
		}
	}
	return true, fmt.Errorf("%w; give daemon.table another name, or delete it", ErrForeignTable)
}

// write makes the table have these rules. Chains that are there already stay where they
// are hooked in, lest the kernel drops what waits in the queues; if they are hooked in
// elsewhere (EEXIST; before 6.4 EBUSY or EOPNOTSUPP), the table is made anew.
func (r *Ruleset) write(conn *nftables.Conn) error {
	err := r.update(conn)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EOPNOTSUPP) {
		table := r.table()
		conn.AddTable(table) // so that there is one to delete
		conn.DelTable(table)
		r.add(conn)
		return conn.Flush()
	}
	return err
}

// update replaces the rules of all chains.
func (r *Ruleset) update(conn *nftables.Conn) error {
	conn.AddTable(r.table())
	conn.FlushTable(r.table())
	r.add(conn)
	return conn.Flush()
}

func (r *Ruleset) add(conn *nftables.Conn) {
	table := conn.AddTable(r.table())
	for _, c := range r.chains {
		conn.AddChain(c.nftables(table))
	}
	for _, c := range r.chains {
		for i, rule := range c.rules {
			comment := rule.why
			if i == 0 && c.name == acceptedChain {
				comment = owner
			}
			conn.AddRule(rule.nftables(table, c.name, comment))
		}
	}
}

func (c *chain) nftables(table *nftables.Table) *nftables.Chain {
	n := &nftables.Chain{Name: c.name, Table: table}
	if c.hooked {
		policy := nftables.ChainPolicyAccept
		n.Type, n.Policy = nftables.ChainTypeFilter, &policy
		n.Hooknum = nftables.ChainHookRef(nftables.ChainHook(c.hook))
		n.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.priority))
	}
	return n
}

func (r *kernelRule) nftables(table *nftables.Table, chain, comment string) *nftables.Rule {
	var exprs []expr.Any
	for _, m := range r.when {
		exprs = append(exprs, m.exprs()...)
	}
	n := &nftables.Rule{Table: table, Chain: &nftables.Chain{Name: chain}, Exprs: append(exprs, r.do.exprs()...)}
	if comment != "" {
		n.UserData = userdata.AppendString(nil, userdata.TypeComment, comment)
	}
	return n
}

// explained says in our words what the kernel means.
func explained(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		// nfnetlink answers EINVAL for a subsystem that it does not know.
		return fmt.Errorf("%w, or not one that we understand: %w", ErrNoNFTables, err)
	}
	return err
}
