package doctor

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"inquest/guard"
)

func TestWarnings(t *testing.T) {
	log := strings.Split(`[1.0] refcount_t: underflow; use-after-free.
[1.0] WARNING: CPU: 0 PID: 55 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110
[1.0][ T55] RIP: 0010:refcount_warn_saturate+0xba/0x110
[1.0]  ? left_over+0x1/0x2
[1.0]  [<ffffffff81234567>] first.isra.0+0x1/0x2
 second+0x1/0x2 [mod]
[1.0] ---[ end trace 0 ]---
[2.0] quiet
[3.0] BUG: kernel NULL pointer dereference, address: 0000000000000040
<4>[3.0] third+0x1/0x2`, "\n")
	got := warnings(log)
	if len(got) != 2 || !got[0].refcount || got[1].refcount || got[0].text != "refcount_t: underflow; use-after-free." {
		t.Fatalf("got %+v", got)
	}
	if diff := cmp.Diff([]string{"refcount_warn_saturate", "first", "second"}, got[0].functions); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"third"}, got[1].functions); diff != "" {
		t.Error(diff)
	}
}

func TestKmsgText(t *testing.T) {
	for record, want := range map[string]string{
		"6,1,0,-;Linux version 6\n SUBSYSTEM=x\n": "Linux version 6",
		"4,2,9,-,caller=T1;a;b":                   "a;b",
		"rubbish":                                 "",
	} {
		if got := kmsgText(record); got != want {
			t.Errorf("%q is %q, want %q", record, got, want)
		}
	}
}

func TestQueueNumbers(t *testing.T) {
	for text, want := range map[string]int{"0": 1, "3-5": 3, "0-65535": 65536, "5-3": 0, "by the packet": 0, "70000": 0, "": 0} {
		if got, ok := queueNumbers(text); len(got) != want || ok != (want > 0) {
			t.Errorf("%q: %d, %t", text, len(got), ok)
		}
	}
}

func TestParseNFT(t *testing.T) {
	tests := []struct {
		rule   string
		queues string
		bypass bool
		fanout bool
		state  guard.State
	}{
		{"queue", "0", false, false, guard.Open},
		{"queue num 3", "3", false, false, guard.Open},
		{"queue num 1-4 bypass,fanout", "1-4", true, true, guard.Open},
		{"counter packets 0 bytes 0 queue flags bypass to 5", "5", true, false, guard.Open},
		{"queue to symhash mod 2 offset 100", "by the packet", false, false, guard.Open},
		{"udp dport 53 queue to 5", "5", false, false, guard.Harmless},
		{"ct state new queue to 5", "5", false, false, guard.Harmless},
		{"ct state { established, new } queue to 5", "5", false, false, guard.Open},
		{`queue to 5 comment "queue to 7"`, "5", false, false, guard.Open},
	}
	for _, tt := range tests {
		got := parseNFT("table inet t {\n\tchain c {\n\t\ttype filter hook output priority 0; policy accept;\n\t\t" + tt.rule + "\n\t}\n}\n")
		if len(got) != 1 || got[0].Queues != tt.queues || got[0].Bypass != tt.bypass || got[0].Fanout != tt.fanout || got[0].State != tt.state {
			t.Errorf("%s: %+v", tt.rule, got)
		}
	}
	if got := parseNFT("table ip t {\n chain queue {\n tcp dport 1 accept\n }\n}\n"); len(got) != 0 {
		t.Errorf("a chain named queue: %+v", got)
	}
}

func TestParseDiag(t *testing.T) {
	message := make([]byte, 28)
	binary.NativeEndian.PutUint32(message[4:], 77)
	attr := make([]byte, 4+9*4)
	binary.NativeEndian.PutUint16(attr, uint16(len(attr)))
	binary.NativeEndian.PutUint32(attr[4+4:], 425984)
	if port, size, ok := parseDiag(append(message, attr...)); !ok || port != 77 || size != 425984 {
		t.Errorf("port %d, %d bytes, %t", port, size, ok)
	}
	for _, bad := range [][]byte{nil, message[:20], message, append(message, 1, 2)} {
		if _, _, ok := parseDiag(bad); ok {
			t.Errorf("% x is taken", bad)
		}
	}
}

func TestSmallBuffer(t *testing.T) {
	s := &Subject{buffers: map[uint32]uint64{1: 8 << 20, 2: 212992}}
	for port, want := range map[uint32]State{1: Fine, 2: Weak} {
		f := s.queueFinding(queue{Port: port, CopyMode: copyPacket, CopyRange: 65531}, netlinkSocket{})
		if f.State != want {
			t.Errorf("reader %d: %+v", port, f)
		}
	}
}

// FuzzParsers feeds text to everything that reads text of a machine.
func FuzzParsers(f *testing.F) {
	f.Add("    0 2310003   812 2 65531     0  1781   912345  1\n")
	f.Add("0000000000000000 12  2310003    00000000 212000   0        0     2        1781     41234\n")
	f.Add("   2: 0100007F:C000 0100007F:0000 03 00000000:00000000 01:00000063 00000001\n")
	f.Add("request_sock_TCP    48210  48230    312   26    2 : tunables    0\nMemTotal: 8 kB\n")
	f.Add("table ip t {\n chain c {\n type filter hook output priority 0;\n jump c\n queue num 1-4 bypass\n }\n}\n")
	f.Add("*mangle\n-A OUTPUT -j A\n-A A -j B\n-A B -j A\n-A B -j NFQUEUE --queue-balance 4:5\n")
	f.Add("refcount_t: underflow\n a+0x1/0x2\n---[ end trace\n")
	f.Add("6,1,0,-;Linux version 6\n SUBSYSTEM=x\n")
	f.Fuzz(func(t *testing.T, text string) {
		parseQueues(text)
		parseNetlink(text)
		parseTCP(text)
		parseSlabinfo(text)
		parseMeminfo(text)
		kmsgText(text)
		parseDiag([]byte(text))
		if w := warnings(strings.Split(text, "\n")); len(w) > strings.Count(text, "\n")+1 {
			t.Errorf("%d warnings", len(w))
		}
		for _, p := range append(parseNFT(text), parseIPTables(text)...) {
			queueNumbers(p.Queues)
			if p.Rule == "" || p.Queues == "" || p.State == "" {
				t.Errorf("%+v", p)
			}
		}
	})
}

// Only a rule that accepts all SYN/ACKs shields the one behind it.
func TestShields(t *testing.T) {
	nft := map[string]guard.State{
		"tcp flags & (syn | ack) == syn | ack accept":                                                   guard.Shielded,
		"tcp flags & (fin | syn | rst | ack) == syn | ack counter packets 1 bytes 60 accept":            guard.Shielded,
		"meta l4proto tcp tcp flags syn,ack / syn,ack accept":                                           guard.Shielded,
		`tcp flags & (syn | ack) == syn | ack counter packets 1 bytes 60 accept comment "x" # handle 1`: guard.Shielded,
		"tcp sport 22 tcp flags & (syn | ack) == syn | ack accept":                                      guard.Open,
		"tcp flags & (syn | ack) == syn accept":                                                         guard.Open,
		"tcp flags & (syn | ack) == syn | ack drop":                                                     guard.Open,
		"tcp flags & (syn | ack) == syn | ack ip daddr 1.2.3.4 accept":                                  guard.Open,
	}
	for rule, want := range nft {
		got := parseNFT("table ip t {\n chain c {\n type filter hook output priority 0;\n " + rule + "\n queue num 0\n }\n}\n")
		if len(got) != 1 || got[0].State != want {
			t.Errorf("%s: %+v, want %s", rule, got, want)
		}
	}
	iptables := map[string]guard.State{
		"-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j ACCEPT":                                    guard.Shielded,
		`-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN,ACK -m comment --comment "a b" -j ACCEPT`: guard.Shielded,
		"-p tcp -m tcp --sport 22 --tcp-flags SYN,ACK SYN,ACK -j ACCEPT":                         guard.Open,
		"-o lo -p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j ACCEPT":                              guard.Open,
		"-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j RETURN":                                    guard.Open,
	}
	for rule, want := range iptables {
		got := parseIPTables("*filter\n-A OUTPUT " + rule + "\n-A OUTPUT -j NFQUEUE\n")
		if len(got) != 1 || got[0].State != want {
			t.Errorf("%s: %+v, want %s", rule, got, want)
		}
	}
}
