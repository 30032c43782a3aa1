package rule

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"inquest/inspect/app"
	"inquest/inspect/packet"
)

// load loads rules for a test.
func load(t testing.TB, src string) *Set {
	t.Helper()
	s, err := Load("test.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tcpPacket and udpPacket are packets of a flow that they begin.
func tcpPacket(src, dst string, flags packet.Flags) *Env {
	e := transportPacket(src, dst, packet.ProtoTCP)
	e.Packet.TCP.Flags = flags
	return e
}

func udpPacket(src, dst string) *Env { return transportPacket(src, dst, packet.ProtoUDP) }

func transportPacket(src, dst string, proto uint8) *Env {
	from, to := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	p := &packet.Packet{
		Version: 4, Proto: proto, TTL: 64, HasTransport: true, Len: 60,
		Src: from.Addr(), Dst: to.Addr(), SrcPort: from.Port(), DstPort: to.Port(),
	}
	if from.Addr().Is6() {
		p.Version = 6
	}
	e := &Env{Packet: p, Facts: &app.Facts{}, Meta: &Meta{}}
	e.Flow.Tuple = p.Tuple()
	e.Flow.State = "new"
	e.Flow.Packets = 1
	return e
}

// answer turns a packet into one of the same flow the other way.
func answer(e *Env) *Env {
	p := *e.Packet
	p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	out := *e
	out.Packet = &p
	out.Flow.Reply = true
	return &out
}

// final makes all facts of a packet's flow final.
func final(e *Env, set func(*app.Facts)) *Env {
	e.Facts.Known, e.Facts.Final, e.Facts.Done = app.AllFields, app.AllFields, true
	e.PatternsDone = true
	if set != nil {
		set(e.Facts)
	}
	return e
}

func TestExample(t *testing.T) {
	src, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := load(t, string(src))
	sni := func(name string) func(*app.Facts) {
		return func(f *app.Facts) { f.Proto, f.TLS.SNI, f.TLS.Version = app.ProtoTLS, name, 0x0304 }
	}
	broken := tcpPacket("192.0.2.7:40000", "203.0.113.1:23", packet.SYN|packet.FIN)
	broken.Packet.Anomalies = packet.BadIPChecksum | packet.BadFlags
	tests := []struct {
		name    string
		env     *Env
		rule    string
		verdict string
		pending bool
		perFlow bool
	}{
		{"broken", broken, "broken packets", "drop", false, false},
		{"office", tcpPacket("192.0.2.7:40000", "203.0.113.1:23", packet.SYN), "office", "accept", false, false},
		{"syn waits for its name", tcpPacket("198.51.100.1:40000", "203.0.113.1:443", packet.SYN), "ads", "accept", true, false},
		{"ads", final(tcpPacket("198.51.100.1:40000", "203.0.113.1:443", packet.ACK), sni("x.doubleclick.example")), "ads", "reject", false, false},
		{"below only", final(tcpPacket("198.51.100.1:40000", "203.0.113.1:443", packet.ACK), sni("tracker.example")), "", "accept", false, false},
		{"below", final(tcpPacket("198.51.100.1:40000", "203.0.113.1:443", packet.ACK), sni("a.tracker.example")), "ads", "reject", false, false},
		{"old", final(tcpPacket("198.51.100.1:40000", "203.0.113.1:443", packet.ACK), func(f *app.Facts) { f.Proto, f.TLS.Version = app.ProtoTLS, 0x0301 }), "old TLS", "reject", false, false},
		{"telnet", final(tcpPacket("198.51.100.1:40000", "203.0.113.1:23", packet.SYN), nil), "telnet", "reject-with tcp-reset", false, false},
		{"telnet, answer", answer(final(tcpPacket("198.51.100.1:40000", "203.0.113.1:23", packet.SYN), nil)), "telnet", "reject-with tcp-reset", false, false},
		{"voice", final(udpPacket("198.51.100.1:40000", "203.0.113.1:20000"), nil), "voice first", "mark 0x10/0xff", false, false},
	}
	var scratch Scratch
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out := s.Judge(test.env, 0, &scratch)
			name := ""
			if out.Rule != Default {
				name = s.Rules()[out.Rule].Name
			}
			if name != test.rule || out.Verdict.String() != test.verdict || out.Pending != test.pending || out.PerFlow != test.perFlow {
				t.Errorf("got rule %q, %v, pending %v, per flow %v; want %q, %v, %v, %v",
					name, out.Verdict, out.Pending, out.PerFlow, test.rule, test.verdict, test.pending, test.perFlow)
			}
		})
	}
}

func TestFacts(t *testing.T) {
	s := load(t, `
default: accept
rules:
  - {name: a, when: tls.sni == "a" || tcp.dport == 1, verdict: drop}
  - {name: b, when: http.host == "a", verdict: drop, disabled: true}
`)
	if got, want := s.Facts(), app.Set(app.FieldTLSSNI); got != want {
		t.Errorf("facts %b, want %b", got, want)
	}
}

// TestNotIP judges what has no IP header at all.
func TestNotIP(t *testing.T) {
	s := load(t, `
default: drop
rules:
  - {name: net, when: ip.src in "::/0" || ip.dst in "0.0.0.0/0", verdict: accept}
  - {name: port, when: th.dport >= 0 || !tcp.syn || icmp.type == 0, verdict: accept}
  - {name: often, when: ip.version == 6, rate: 1/s, per: flow, verdict: accept}
  - {name: other, when: ip.version == 0, rate: 1/s, per: flow, verdict: queue 3}
`)
	var scratch Scratch
	for _, e := range []*Env{{Packet: &packet.Packet{}}, {}} {
		if out := s.Judge(e, 0, &scratch); out.Rule != 3 || out.Verdict.Queue != 3 || out.PerFlow {
			t.Errorf("got %+v, want rule 3", out)
		}
	}
}

func TestPerFlow(t *testing.T) {
	s := load(t, strings.TrimSpace(`
default: accept
rules:
  - {name: dns, when: udp.dport == 53, verdict: drop}
  - {name: flags, when: tcp.dport == 80 && tcp.rst, verdict: drop}
  - {name: host, when: tcp.dport == 8080 && http.host == "a", verdict: drop}
  - {name: limited, when: tcp.dport == 22, rate: 1/s, verdict: accept}
  - {name: from, when: 'tcp.dport == 25 && meta.iifname == "eth0"', verdict: drop}
  - {name: client port, when: tcp.sport == 7, verdict: drop}
  - {name: stateless, when: tcp.sport == 9, scope: packet, verdict: drop}
`))
	http := func(e *Env) *Env {
		final(e, nil)
		e.Facts.Done = false
		e.Facts.Final &^= app.Set(app.FieldHTTPHost)
		return e
	}
	tests := []struct {
		name    string
		env     *Env
		rule    int
		pending bool
		perFlow bool
	}{
		{"by ports", udpPacket("198.51.100.1:1000", "203.0.113.1:53"), 0, false, true},
		{"by ports, answer", answer(udpPacket("198.51.100.1:1000", "203.0.113.1:53")), 0, false, true},
		{"flags later", tcpPacket("198.51.100.1:1000", "203.0.113.1:80", packet.SYN), Default, false, false},
		{"flags now", tcpPacket("198.51.100.1:1000", "203.0.113.1:80", packet.RST), 1, false, false},
		{"other port", tcpPacket("198.51.100.1:1000", "203.0.113.1:81", packet.RST), Default, false, true},
		{"host unknown", tcpPacket("198.51.100.1:1000", "203.0.113.1:8080", packet.RST), 2, true, false},
		{"host may change", http(tcpPacket("198.51.100.1:1000", "203.0.113.1:8080", packet.RST)), Default, false, false},
		{"host is final", final(tcpPacket("198.51.100.1:1000", "203.0.113.1:8080", packet.RST), nil), Default, false, true},
		{"rate", tcpPacket("198.51.100.1:1000", "203.0.113.1:22", packet.SYN), 3, false, false},
		{"device of the first packet", tcpPacket("198.51.100.1:1000", "203.0.113.1:25", packet.SYN), Default, false, true},
		{"source port", tcpPacket("198.51.100.1:7", "203.0.113.1:1000", packet.SYN), 5, false, true},
		{"packet rule, this way", tcpPacket("198.51.100.1:9", "203.0.113.1:1000", packet.SYN), 6, false, false},
		{"packet rule, other way", tcpPacket("198.51.100.1:1000", "203.0.113.1:9", packet.SYN), Default, false, false},
		{"packet rule, neither way", tcpPacket("198.51.100.1:1000", "203.0.113.1:10", packet.SYN), Default, false, true},
		{"packet rule, both ways", tcpPacket("198.51.100.1:9", "203.0.113.1:9", packet.SYN), 6, false, true},
	}
	var scratch Scratch
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.env.PatternsDone = true
			out := s.Judge(test.env, 0, &scratch)
			if out.Rule != test.rule || out.Pending != test.pending || out.PerFlow != test.perFlow {
				t.Errorf("got %+v; want rule %d, pending %v, per flow %v", out, test.rule, test.pending, test.perFlow)
			}
		})
	}
}
