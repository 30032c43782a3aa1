package inspect

import (
	"testing"

	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// TestPanicLeavesNothingLocked: the daemon contains a panic and goes on with the next
// packet, of the same flow too.
func TestPanicLeavesNothingLocked(t *testing.T) {
	set, err := rule.Load("test.yaml", []byte("default: accept\nrules:\n- {name: a, when: 'http.host == \"x\"', verdict: drop}\n"))
	if err != nil {
		t.Fatal(err)
	}
	e := New(set, Config{})
	w := e.Worker()
	segment := []byte{
		0x45, 0, 0, 46, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
		0x9c, 0x40, 0, 80, 0, 0, 0, 9, 0, 0, 0, 9, 0x50, 0x10, 1, 1, 0, 0, 0, 0, 'G', 'E', 'T', ' ', '/', ' ',
	}
	var p packet.Packet
	if err := p.Decode(segment); err != nil {
		t.Fatal(err)
	}
	p.FixChecksums()

	w.generation.set = new(rule.Set) // has no index, so that Judge panics
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		w.Inspect(segment, nil, 0)
	}()
	w.generation.set = set
	if s := e.Stats(); s.Sessions != 1 {
		t.Fatalf("%d sessions", s.Sessions)
	}
	if d := w.Inspect(segment, nil, 1); d.Verdict.Kind != rule.Accept || !d.Decided {
		t.Errorf("%+v", d)
	}
	e.Expire(1 << 60)
	if s := e.Stats(); s.Sessions != 0 || s.Flows.Flows != 0 {
		t.Errorf("%+v", s)
	}
}
