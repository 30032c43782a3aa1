package inspect_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"inquest/inspect"
	"inquest/inspect/app"
	"inquest/inspect/flow"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

const rules = `
default: accept
patterns:
  secret: {literal: "attack at dawn"}
rules:
  - name: telnet
    when: tcp.dport == 23
    verdict: reject
    log: true
  - name: ads
    when: tls.sni.endsWith(".ads.example")
    verdict: drop
  - name: blocked host
    when: http.host == "blocked.example"
    verdict: drop
  - name: bad name
    when: dns.names.exists(n, n == "bad.example")
    verdict: drop
  - name: secret
    when: pattern("secret")
    verdict: drop
  - name: ping
    when: icmp.type == 8
    verdict: drop
  - name: broken
    when: ip.anomalies.exists(a, a == "bad-checksum")
    verdict: drop
`

// step is a packet and what is expected of it.
type step struct {
	data []byte
	want string
}

func steps(want string, packets ...[]byte) (out []step) {
	for _, p := range packets {
		out = append(out, step{p, want})
	}
	return out
}

func join(all ...[]step) (out []step) {
	for _, s := range all {
		out = append(out, s...)
	}
	return out
}

func TestInspect(t *testing.T) {
	const client, web, tlsServer = "10.0.0.1:40000", "192.0.2.1:80", "192.0.2.1:443"
	hello, ads := clientHello(t, "www.example"), clientHello(t, "x.ads.example")
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		return b
	}
	fragment := func(b []byte, offset uint16, more bool) []byte {
		b = bytes.Clone(b)
		offset /= 8
		if more {
			offset |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], offset)
		var p packet.Packet
		if err := p.Decode(b); err != nil {
			t.Fatal(err)
		}
		p.FixChecksums()
		return b
	}
	tests := []struct {
		name  string
		steps func() []step
	}{
		{"by port", func() []step {
			c := connect(client, "192.0.2.1:23")
			open := c.open()
			return join(steps("reject telnet decided log", open[0]), steps("reject telnet decided cached", open[1:]...))
		}},
		{"TLS, accepted", func() []step {
			c := connect(client, tlsServer)
			return join(steps("accept ads pending", c.open()...), steps("accept", c.say(hello)))
		}},
		{"TLS, dropped", func() []step {
			c := connect(client, tlsServer)
			open := steps("accept ads pending", c.open()...)
			first := c.say(ads)
			return join(open, steps("drop ads decided", first), steps("drop ads decided cached", first, c.answer("too late")))
		}},
		{"TLS over IPv6, hello in three segments out of order", func() []step {
			c := connect("[2001:db8::1]:40000", "[2001:db8::2]:443")
			open := steps("accept ads pending", c.open()...)
			a, b, d := c.say(ads[:100]), c.say(ads[100:250]), c.say(ads[250:])
			return join(open, steps("accept ads pending", d, b), steps("drop ads decided", a))
		}},
		{"TLS, segment with a bad checksum", func() []step {
			c := connect(client, tlsServer)
			open := steps("accept ads pending", c.open()...)
			good := c.say(ads)
			return join(open, steps("accept ads pending", flip(good)), steps("drop ads decided", good))
		}},
		{"HTTP, dropped and sent again", func() []step {
			c := connect(client, web)
			open := steps("accept ads pending", c.open()...)
			fine := c.say("GET / HTTP/1.1\r\nHost: fine.example\r\n\r\n")
			bad := c.say("GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n")
			later := c.say("GET / HTTP/1.1\r\nHost: fine.example\r\n\r\n")
			return join(open, steps("accept", fine), steps("drop blocked host", bad),
				steps("drop blocked host held", later), steps("drop blocked host", bad), steps("drop blocked host held", later))
		}},
		{"HTTP, two requests in a segment", func() []step {
			c := connect(client, web)
			open := steps("accept ads pending", c.open()...)
			both := c.say("GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\nGET / HTTP/1.1\r\nHost: fine.example\r\n\r\n")
			return join(open, steps("drop blocked host", both, both))
		}},
		{"HTTP, cut anywhere", func() []step {
			c := connect(client, web)
			s := steps("accept ads pending", c.open()...)
			request := "GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n"
			for i := range len(request) - 1 {
				s = append(s, steps("*", c.say(request[i:i+1]))...)
			}
			return join(s, steps("drop blocked host", c.say("\n")))
		}},
		{"DNS", func() []step {
			e := between("10.0.0.1:5353", "192.0.2.53:53")
			return join(steps("accept", e.udp(dnsQuery(t, "good.example."))), steps("drop bad name", e.udp(dnsQuery(t, "bad.example."))),
				steps("accept", e.udp(dnsQuery(t, "good.example."))))
		}},
		{"pattern across segments", func() []step {
			c := connect(client, "192.0.2.1:9999")
			return join(steps("accept ads pending", c.open()...), steps("*", c.say("\x00\xff a protocol that nobody knows: attack ")),
				steps("drop secret decided", c.say("at dawn")))
		}},
		{"pattern not across datagrams", func() []step {
			e := between(client, "192.0.2.1:9999")
			return join(steps("accept", e.udp([]byte("attack at ")), e.udp([]byte("dawn"))), steps("drop secret decided", e.udp([]byte("attack at dawn"))))
		}},
		{"ping", func() []step {
			e := between("10.0.0.1:0", "192.0.2.1:0")
			return steps("drop ping", e.ip(packet.ProtoICMP, []byte{8, 0, 0, 0, 0, 1, 0, 1}))
		}},
		{"ICMP error", func() []step {
			e := between("192.0.2.1:0", "10.0.0.1:0")
			return steps("accept", e.ip(packet.ProtoICMP, []byte{3, 3, 0, 0, 0, 0, 0, 0}, between(client, web).udp(nil)))
		}},
		{"another protocol", func() []step {
			return steps("accept", between("192.0.2.1:0", "10.0.0.1:0").ip(50, []byte("encrypted")))
		}},
		{"bad checksum", func() []step {
			return steps("drop broken", flip(between("10.0.0.1:0", "192.0.2.1:0").ip(packet.ProtoICMP, []byte{3, 3, 0, 0, 0, 0, 0, 0, 1})))
		}},
		{"fragments", func() []step {
			b := between("10.0.0.1:5353", "192.0.2.53:53").udp(bytes.Repeat([]byte("x"), 64))
			return join(steps("accept", fragment(b[:60], 0, true)), steps("accept", fragment(append(b[:20:20], b[60:]...), 40, false)))
		}},
		{"not IP", func() []step {
			return steps("accept", nil, []byte("?"), make([]byte, 60), []byte{0x45}, []byte{0x60})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := inspect.New(load(t, rules), inspect.Config{})
			w := e.Worker()
			for i, s := range tt.steps() {
				got := judge(e, w.Inspect(s.data, nil, int64(i)*int64(time.Millisecond)))
				if s.want == "*" {
					got = strings.Fields(got)[0]
					s.want = "accept"
				}
				if got != s.want {
					t.Errorf("packet %d: %q, want %q", i, got, s.want)
				}
			}
			if n := e.Stats().Packets; n == 0 {
				t.Error("nothing was counted")
			}
		})
	}
}

func TestLog(t *testing.T) {
	e := inspect.New(load(t, "default: accept\nrules:\n- {name: a, when: 'tls.sni == \"www.example\"', verdict: drop, log: true}\n"), inspect.Config{})
	w := e.Worker()
	c := connect("10.0.0.1:40000", "192.0.2.1:443")
	for _, p := range c.open() {
		w.Inspect(p, nil, 0)
	}
	if d := w.Inspect(c.say(clientHello(t, "www.example")), nil, 0); !d.Log {
		t.Fatal("not to be logged")
	}
	if f := w.Facts(); f.TLS.SNI != "www.example" || f.Proto != app.ProtoTLS {
		t.Errorf("facts %+v", f)
	}
	if w.Flow().DstPort != 443 || w.Dir() != flow.Original || w.Packet().TCP.Seq != 1001 {
		t.Errorf("%+v, %v, %+v", w.Flow(), w.Dir(), w.Packet().TCP)
	}
	if w.Inspect(c.answer("x"), nil, 0); w.Flow().DstPort != 443 || w.Dir() != flow.Reply {
		t.Errorf("%+v, %v", w.Flow(), w.Dir())
	}
}

func TestMeta(t *testing.T) {
	e := inspect.New(load(t, `
default: drop
rules:
- {name: inside, when: 'meta.iifname == "lan0"', verdict: accept}
- {name: mark, when: 'meta.mark == 7', verdict: {mark: 0x10/0xff}, scope: packet}
- {name: other, when: 'udp.dport == 9', verdict: {queue: 5}}
`), inspect.Config{})
	w := e.Worker()
	a, b, c := between("10.0.0.1:1", "10.0.0.2:2"), between("10.0.0.1:3", "10.0.0.2:4"), between("10.0.0.1:3", "10.0.0.2:9")
	for i, s := range []struct {
		data []byte
		meta rule.Meta
		want string
	}{
		{a.udp(nil), rule.Meta{In: "lan0"}, "accept inside decided"},
		{a.back().udp(nil), rule.Meta{In: "wan0"}, "accept inside decided cached"},
		{b.udp(nil), rule.Meta{In: "wan0"}, "drop"},
		{b.udp(nil), rule.Meta{In: "lan0", Mark: 7}, "mark 0x10/0xff mark"},
		{b.udp(nil), rule.Meta{In: "lan0"}, "drop"}, // the flow's first packet came in by wan0
		{c.udp(nil), rule.Meta{}, "queue 5 other"},
	} {
		if got := judge(e, w.Inspect(s.data, &s.meta, int64(i))); got != s.want {
			t.Errorf("packet %d: %q, want %q", i, got, s.want)
		}
	}
}

func TestChecksumState(t *testing.T) {
	e := inspect.New(load(t, "default: accept\nrules:\n- {name: broken, when: 'ip.anomalies.exists(a, a == \"bad-checksum\")', verdict: drop}\n"), inspect.Config{})
	w := e.Worker()
	b := between("10.0.0.1:1", "10.0.0.2:2").udp([]byte("x"))
	b[len(b)-1] ^= 1
	for state, want := range map[packet.ChecksumState]rule.Kind{
		packet.ChecksumUnverified: rule.Drop, packet.ChecksumPartial: rule.Accept, packet.ChecksumVerified: rule.Accept,
	} {
		if d := w.Inspect(b, &rule.Meta{Checksum: state}, 0); d.Verdict.Kind != want {
			t.Errorf("state %d: %v", state, d.Verdict)
		}
	}
}

func TestAppendAnswer(t *testing.T) {
	w := inspect.New(load(t, "default: reject\n"), inspect.Config{}).Worker()
	c := connect("10.0.0.1:40000", "192.0.2.1:443")
	u := between("10.0.0.1:40000", "192.0.2.1:443").udp(nil)
	tests := []struct {
		data   []byte
		answer rule.Answer
		want   string
	}{
		{c.tcp(packet.SYN, 1, 0, ""), rule.AnswerAuto, "RST ACK"},
		{c.tcp(packet.SYN, 1, 0, ""), rule.AnswerTCPReset, "RST ACK"},
		{c.tcp(packet.SYN, 1, 0, ""), rule.AnswerAdminProhibited, "3/13"},
		{c.tcp(packet.RST, 1, 0, ""), rule.AnswerAuto, ""},
		{c.tcp(packet.RST, 1, 0, ""), rule.AnswerPortUnreachable, ""},
		{u, rule.AnswerAuto, "3/3"},
		{u, rule.AnswerTCPReset, "3/3"},
		{u, rule.AnswerHostUnreachable, "3/1"},
		{u, rule.AnswerNetUnreachable, "3/0"},
		{[]byte("?"), rule.AnswerAuto, ""},
	}
	for i, tt := range tests {
		w.Inspect(tt.data, nil, 0)
		out, ok := w.AppendAnswer(nil, tt.answer)
		got := ""
		if ok {
			var p packet.Packet
			if err := p.Decode(out); err != nil {
				t.Fatal(err)
			}
			if got = strings.Join(p.TCP.Flags.Names(), " "); p.Proto == packet.ProtoICMP {
				got = string('0'+rune(p.ICMP.Type)) + "/" + strings.TrimPrefix(string([]byte{'0' + p.ICMP.Code/10, '0' + p.ICMP.Code%10}), "0")
			}
		}
		if got != tt.want {
			t.Errorf("case %d: answer %q, want %q", i, got, tt.want)
		}
	}
}
