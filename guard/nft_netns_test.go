//go:build netns

package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// table is one in a new namespace, made through another implementation than ours.
type table struct {
	t    *testing.T
	conn *nftables.Conn
	*nftables.Table
	xt bool // the kernel has no nft_queue
}

func newTable(t *testing.T, family nftables.TableFamily) *table {
	t.Helper()
	inNamespace(t)
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	b := &table{t: t, conn: conn}
	b.Table = conn.AddTable(&nftables.Table{Name: "probe", Family: nftables.TableFamilyINet})
	c := b.chain("c", nil)
	conn.AddRule(&nftables.Rule{Table: b.Table, Chain: c, Exprs: []expr.Any{&expr.Queue{Num: 1, Total: 1}}})
	if err := conn.Flush(); errors.Is(err, unix.ENOENT) {
		b.xt = true
		t.Log("this kernel has no nft_queue: by iptables' target")
	} else if err != nil {
		t.Fatal(err)
	} else {
		conn.DelTable(b.Table)
	}
	b.Table = conn.AddTable(&nftables.Table{Name: "t", Family: family})
	return b
}

func (b *table) flush() {
	b.t.Helper()
	if err := b.conn.Flush(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *table) chain(name string, hook *nftables.ChainHook) *nftables.Chain {
	c := &nftables.Chain{Name: name, Table: b.Table}
	if hook != nil {
		c.Type, c.Hooknum, c.Priority = nftables.ChainTypeFilter, hook, nftables.ChainPriorityFilter
	}
	return b.conn.AddChain(c)
}

func (b *table) rule(c *nftables.Chain, exprs ...[]expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.Table, Chain: c, Exprs: slices.Concat(exprs...)})
}

func (b *table) queue(n uint16) []expr.Any {
	if !b.xt {
		return []expr.Any{&expr.Queue{Num: n, Total: 1}}
	}
	info := xt.Unknown(binary.NativeEndian.AppendUint16(nil, n))
	info = append(binary.NativeEndian.AppendUint16(info, 1), 0, 0, 0, 0)
	return []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}
}

func tcpPort(dst bool) []expr.Any {
	offset := uint32(0)
	if dst {
		offset = 2
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
	}
}

// in looks up register 1 in a new anonymous set of ports, or ranges of them.
func (b *table) in(ranges ...[2]uint16) []expr.Any {
	b.t.Helper()
	set := &nftables.Set{Table: b.Table, Anonymous: true, Constant: true, Interval: true, KeyType: nftables.TypeInetService}
	key := func(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
	elements := []nftables.SetElement{{Key: key(0), IntervalEnd: true}}
	for _, r := range ranges {
		elements = append(elements, nftables.SetElement{Key: key(r[0])}, nftables.SetElement{Key: key(r[1] + 1), IntervalEnd: true})
	}
	if err := b.conn.AddSet(set, elements); err != nil {
		b.t.Fatal(err)
	}
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetID: set.ID, SetName: set.Name}}
}

// ruleset is all that the namespace has: chains with rules, each expression's name and
// data.
func ruleset(t *testing.T) []string {
	t.Helper()
	n, err := openNFT()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s, err := n.read()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range s.rules {
		line := fmt.Sprintf("%s %d:", r.chainKey, r.handle)
		for _, e := range r.exprs {
			line += fmt.Sprintf(" %s %x", e.name, e.data)
		}
		lines = append(lines, line)
	}
	return lines
}

// Rules in chains that are jumped to, by a rule or by a map, with anonymous sets of
// ranges, which cannot be shared.
func TestQueueNetns(t *testing.T) {
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		t.Run(familyNames[byte(family)], func(t *testing.T) {
			b := newTable(t, family)
			out := b.chain("out", nftables.ChainHookOutput)
			in := b.chain("in", nftables.ChainHookInput)
			jumped, mapped, lonely := b.chain("jumped", nil), b.chain("mapped", nil), b.chain("lonely", nil)
			b.rule(out, tcpPort(false), b.in([2]uint16{80, 80}, [2]uint16{8000, 8999}, [2]uint16{9001, 9002}), b.queue(1))
			b.rule(out, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "jumped"}})
			ports := &nftables.Set{
				Table: b.Table, Anonymous: true, Constant: true, IsMap: true,
				KeyType: nftables.TypeInetService, DataType: nftables.TypeVerdict,
			}
			if err := b.conn.AddSet(ports, []nftables.SetElement{
				{Key: []byte{1, 187}, VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: "mapped"}},
			}); err != nil {
				t.Fatal(err)
			}
			b.rule(out, tcpPort(false), []expr.Any{&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetID: ports.ID, SetName: ports.Name}})
			b.rule(jumped, b.queue(2))
			b.rule(mapped, b.queue(3))
			b.rule(lonely, b.queue(4))
			b.rule(in, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "jumped"}})
			b.rule(in, b.queue(5))
			b.flush()
			before := ruleset(t)

			r, err := ReadRules(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]State{"1": Open, "2": Open, "3": Open, "4": Harmless, "5": Harmless}
			expect(t, r, want)
			for range 2 {
				if r, err = ApplyRules(t.Context()); err != nil {
					t.Fatal(err)
				}
				for queue, state := range want {
					if state == Open {
						want[queue] = Shielded
					}
				}
				expect(t, r, want)
				if got := len(ruleset(t)); got != len(before)+3 {
					t.Errorf("%d rules, want 3 more than %d", got, len(before))
				}
			}

			// A rule that gets between makes the carve-out move.
			b.conn.InsertRule(&nftables.Rule{Table: b.Table, Chain: mapped, Exprs: b.queue(6)})
			b.flush()
			want["6"] = Shielded
			if r, err = ApplyRules(t.Context()); err != nil || r.Stale != 0 {
				t.Fatalf("%+v, %v", r, err)
			}
			expect(t, r, want)

			if _, err = RemoveRules(t.Context()); err != nil {
				t.Fatal(err)
			}
			after := slices.DeleteFunc(ruleset(t), func(l string) bool { return !slices.Contains(before, l) })
			if !slices.Equal(before, after) || len(ruleset(t)) != len(before)+1 {
				t.Errorf("a trace is left:\n%q\nbefore\n%q", ruleset(t), before)
			}
		})
	}
}

func expect(t *testing.T, r *Rules, want map[string]State) {
	t.Helper()
	got := make(map[string]State)
	for _, p := range r.Points {
		got[p.Queues] = p.State
	}
	for queue, state := range want {
		if got[queue] != state {
			t.Errorf("queue %s: %q, want %q; all: %+v", queue, got[queue], state, r.Points)
		}
	}
}

// Somebody else changes the ruleset while it is read.
func TestChangedNetns(t *testing.T) {
	b := newTable(t, nftables.TableFamilyINet)
	b.rule(b.chain("out", nftables.ChainHookOutput), b.queue(1))
	b.flush()
	r, err := ReadRules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.chain("another", nil)
	b.flush()
	if err := r.commit(r.nft); !errors.Is(err, errChanged) {
		t.Errorf("committed changes of what is not any more: %v", err)
	}
	if r, err = ApplyRules(t.Context()); err != nil || r.Open() {
		t.Errorf("%+v, %v", r, err)
	}
}
