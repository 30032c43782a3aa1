package inspect_test

import (
	"strings"
	"testing"

	"inquest/inspect"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// TestEvasion: segments that their receiver does not read, sent by a client who wants
// a blocked request to get through, do not hide it. The first packet that the rules
// refuse is the one that carries the request, or the last part of it.
func TestEvasion(t *testing.T) {
	const bad = "GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n"
	fine := "GET / HTTP/1.1\r\nHost: harmless.exampl\r\n\r\n"
	if len(fine) < len(bad) {
		fine += strings.Repeat(" ", len(bad)-len(fine))
	}
	c := connect("10.0.0.1:40000", "192.0.2.1:80")
	open := c.open()
	syn, synack, ack := open[0], open[1], open[2]
	const first, server = 1001, 5001
	say := func(flags packet.Flags, seq, ack uint32, text string) []byte { return c.tcp(flags, seq, ack, text) }
	request := say(packet.ACK, first, server, bad)
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	for _, tt := range []struct {
		name    string
		packets [][]byte
	}{
		{"data without ACK", [][]byte{syn, synack, ack, say(packet.PSH, first, 0, fine), request}},
		{"data that acknowledges what was not sent", [][]byte{syn, synack, ack, say(packet.ACK, first, server+1, fine), request}},
		{"data that acknowledges what is long gone", [][]byte{syn, synack, ack, say(packet.ACK, first, server+1<<31+9, fine), request}},
		{"ACK of what was not sent", [][]byte{syn, synack, ack, say(packet.ACK, first, server, bad[:1]),
			say(packet.ACK, first+1, server+1000, ""), say(packet.ACK, first+1, server, bad[1:])}},
		{"SYN with data on a connection", [][]byte{syn, synack, ack, say(packet.ACK, first, server, bad[:1]),
			say(packet.SYN|packet.ACK, first, server, fine[1:]), say(packet.SYN, first, 0, fine[1:]), say(packet.ACK, first+1, server, bad[1:])}},
		{"data on the first SYN that is not taken", [][]byte{say(packet.SYN, first-1, 0, fine), synack, ack, request}},
		{"data on a SYN that is not answered", [][]byte{say(packet.SYN, 900000, 0, fine), syn, synack, ack, request}},
		{"data on a SYN after the one that is answered", [][]byte{syn, say(packet.SYN, 900000, 0, fine), synack, ack, request}},
		{"Fast Open", [][]byte{say(packet.SYN, first-1, 0, bad[:30]), c.back().tcp(packet.SYN|packet.ACK, server-1, first+30, ""),
			say(packet.ACK, first+30, server, bad[30:])}},
		{"SYN/ACK with a bad checksum turns the flow", [][]byte{flip(say(packet.SYN|packet.ACK, 77, 88, "x")), syn, synack, ack, request}},
		{"SYN/ACK that is not read turns the flow", [][]byte{say(packet.SYN|packet.ACK, 77, 88, ""), syn, synack, ack, request}},
		{"RST with a bad checksum, then a SYN", [][]byte{syn, synack, ack, flip(say(packet.RST|packet.ACK, first, server, "x")),
			say(packet.SYN, first-100, 0, ""), request}},
		{"RST with a bad number, then a SYN", [][]byte{syn, synack, ack, say(packet.RST, first+1000, 0, ""),
			say(packet.SYN, first-100, 0, ""), request}},
		{"SYN on a connection", [][]byte{syn, synack, ack, say(packet.SYN, first-100, 0, ""), request}},
		{"ports used again", [][]byte{syn, synack, ack, say(packet.ACK, first, server, fine),
			say(packet.SYN, 900000, 0, ""), c.back().tcp(packet.SYN|packet.ACK, 700000, 900001, ""),
			say(packet.ACK, 900001, 700001, ""), say(packet.ACK, 900001, 700001, bad)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := inspect.New(load(t, `
default: accept
rules:
- {name: blocked, when: 'tcp.dport == 80 && http.host == "blocked.example"', verdict: drop}
`), inspect.Config{})
			w := e.Worker()
			for i, b := range tt.packets {
				d := w.Inspect(b, nil, int64(i))
				if refused, last := d.Verdict.Kind == rule.Drop, i == len(tt.packets)-1; refused != last {
					t.Errorf("packet %d of %d: %s", i, len(tt.packets), judge(e, d))
				}
			}
		})
	}
}

// TestDatagramWithBadLength: as TestEvasion; a UDP length beyond the packet's end has
// the kernel drop it.
func TestDatagramWithBadLength(t *testing.T) {
	e := inspect.New(load(t, "default: accept\nrules:\n- {name: bad, when: 'dns.names.exists(n, n == \"bad.example\")', verdict: drop}\n"), inspect.Config{})
	w := e.Worker()
	c := between("10.0.0.1:5353", "192.0.2.53:53")
	junk := c.udp([]byte("junk"))
	junk[25], junk[26], junk[27] = 200, 0, 0
	if d := w.Inspect(junk, nil, 0); d.Decided {
		t.Errorf("junk: %s", judge(e, d))
	}
	if got := judge(e, w.Inspect(c.udp(dnsQuery(t, "bad.example.")), nil, 1)); got != "drop bad" {
		t.Errorf("query: %s", got)
	}
}

// TestPortsUsedAgain: a flow that was decided, and whose end the kernel did not show,
// decides nothing of the next connection on its ports.
func TestPortsUsedAgain(t *testing.T) {
	e := inspect.New(load(t, "default: accept\nrules:\n- {name: ads, when: 'tls.sni == \"ads.example\"', verdict: drop}\n"), inspect.Config{})
	names := []string{"www.example", "ads.example", "www.example"}
	w := e.Worker()
	for i, name := range names {
		c := connect("10.0.0.1:40000", "192.0.2.1:443")
		c.seq = [2]uint32{uint32(1 + i*1_000_000), uint32(77 + i*50_000_000)}
		for _, b := range c.open() {
			if got := judge(e, w.Inspect(b, nil, int64(i))); got != "accept ads pending" {
				t.Errorf("connection %d: %s", i, got)
			}
		}
		want := "accept decided"
		if name == "ads.example" {
			want = "drop ads decided"
		}
		if got := judge(e, w.Inspect(c.say(clientHello(t, name)), nil, int64(i))); got != want {
			t.Errorf("connection %d: %s, want %s", i, got, want)
		}
	}
}
