package inspect_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"inquest/inspect"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// everything looks at all that rules can look at, per packet and per flow.
const everything = `
default: accept
patterns:
  secret: {literal: "attack at dawn"}
  number: {regexp: "[0-9]{4}-[0-9]{4}"}
rules:
  - {name: flags, when: 'tcp.syn && tcp.fin', verdict: drop, scope: packet}
  - {name: odd, when: 'ip.anomalies.exists(a, a == "bad-fragment") || ip.options.exists(o, o == "source-route")', verdict: drop}
  - {name: tls, when: 'tls.sni.endsWith(".example") && tls.ja4 != ""', verdict: drop, log: true}
  - {name: quic, when: 'quic.sni == "x"', verdict: reject}
  - {name: http, when: 'http.host == "blocked.example" && http.path.startsWith("/x")', verdict: reject}
  - {name: dns, when: 'dns.names.exists(n, n.endsWith("bad.example")) || dns.answers.exists(a, a == "192.0.2.66")', verdict: drop}
  - {name: ssh, when: 'ssh.client_software.startsWith("libssh")', verdict: drop}
  - {name: pattern, when: 'pattern("secret") || pattern("number")', verdict: drop}
  - {name: much, when: 'flow.bytes > 4000 && flow.packets > 20', verdict: {mark: 3}}
  - {name: often, when: 'icmp.type == 8', rate: over 5/s, per: src, verdict: drop}
  - {name: payload, when: 'payload.startsWith(b"zz") && ip.ttl < 5', verdict: {queue: 2}}
`

// packets cuts fuzzed bytes into packets: each begins with its length.
func packets(b []byte) (out [][]byte) {
	for len(b) >= 2 && len(out) < 64 {
		n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
		out = append(out, b[2:2+n])
		b = b[2+n:]
	}
	return out
}

func pack(all ...[]byte) (b []byte) {
	for _, p := range all {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
	}
	return b
}

// FuzzEngine judges anything: no input may make it panic or hold more than it may,
// and what it says of a packet of a decided flow must not change.
func FuzzEngine(f *testing.F) {
	tls := connect("10.0.0.1:40000", "192.0.2.1:443")
	http := connect("[2001:db8::1]:40000", "[2001:db8::2]:80")
	u := between("10.0.0.1:5353", "192.0.2.53:53")
	hello := clientHello(f, "www.example")
	f.Add(pack(append(tls.open(), tls.say(hello[:50]), tls.say(hello[50:]))...), uint8(0))
	f.Add(pack(append(http.open(), http.say("GET /x HTTP/1.1\r\nHost: blocked.example\r\n\r\n"), http.answer("HTTP/1.1 200 OK\r\n\r\n"))...), uint8(1))
	f.Add(pack(u.udp(dnsQuery(f, "bad.example.")), u.back().udp([]byte("1234-5678"))), uint8(2))
	f.Add(pack(u.ip(packet.ProtoICMP, []byte{8, 0, 0, 0, 0, 0, 0, 1}), u.ip(packet.ProtoSCTP, make([]byte, 20)), []byte("not IP")), uint8(0))
	set := load(f, everything)
	f.Fuzz(func(t *testing.T, b []byte, state uint8) {
		e := inspect.New(set, inspect.Config{MaxFlows: 8, MaxMemory: 1 << 20, Shards: 1, Search: 500})
		w := e.Worker()
		meta := &rule.Meta{In: "eth0", Checksum: packet.ChecksumState(state % 3)}
		all := packets(b)
		for i, p := range all {
			before := slices.Clone(p)
			d := w.Inspect(p, meta, int64(i)*1e6)
			if !slices.Equal(before, p) {
				t.Fatal("the packet was changed")
			}
			if again := w.Inspect(p, meta, int64(i)*1e6); d.Decided && (again.Verdict != d.Verdict || again.Rule != d.Rule) && w.Packet().TCP.Flags&(packet.SYN|packet.RST) == 0 {
				t.Fatalf("decided %+v, then %+v", d, again)
			}
			w.AppendAnswer(nil, d.Verdict.Answer)
		}
		s := e.Stats()
		if s.Packets != uint64(2*len(all)) || s.Flows.Flows > 8 || s.StreamMemory > 1<<19 || s.ParserMemory > 1<<18 {
			t.Fatalf("%+v", s)
		}
		e.Expire(1 << 60)
		if s := e.Stats(); s.StreamMemory != 0 || s.ParserMemory != 0 || s.Sessions != 0 {
			t.Fatalf("held after all flows: %+v", s)
		}
	})
}
