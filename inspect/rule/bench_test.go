package rule

import (
	"fmt"
	"strings"
	"testing"

	"inquest/inspect/app"
	"inquest/inspect/packet"
)

// typical is a file of n rules as gateways have them: ports, networks, names, and
// combinations, none of which match the benchmark's packets.
func typical(n int) string {
	var b strings.Builder
	b.WriteString("default: accept\nlists: {lan: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]}\nrules:\n")
	for i := range n {
		var when string
		switch i % 5 {
		case 0:
			when = fmt.Sprintf("tcp.dport == %d", 1024+i%60000)
		case 1:
			when = fmt.Sprintf(`ip.src in "198.%d.%d.0/24"`, 18+i%2, i/5%256)
		case 2:
			when = fmt.Sprintf(`tcp.dport == 443 && tls.sni.endsWith(".site%d.example")`, i)
		case 3:
			when = fmt.Sprintf(`tls.sni == "www.host%d.example" && ip.src in list.lan`, i)
		case 4:
			when = fmt.Sprintf(`udp.dport == %d && ip.dst in "203.0.%d.0/24"`, 2000+i%60000, i/5%256)
		}
		fmt.Fprintf(&b, "  - {name: r%d, when: '%s', verdict: drop}\n", i, when)
	}
	return b.String()
}

// BenchmarkJudge is the price of one packet of a TLS flow that no rule matches.
func BenchmarkJudge(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000, 10000} {
		s := load(b, typical(n))
		known := final(tcpPacket("10.1.2.3:40000", "203.0.113.9:443", packet.ACK), func(f *app.Facts) {
			f.Proto, f.TLS.SNI = app.ProtoTLS, "cdn.www.news.example"
		})
		opening := tcpPacket("10.1.2.3:40000", "203.0.113.9:443", packet.SYN)
		datagram := udpPacket("10.1.2.3:40000", "203.0.113.9:9")
		for _, c := range []struct {
			name string
			env  *Env
		}{{"tls", known}, {"syn", opening}, {"udp", datagram}} {
			b.Run(fmt.Sprintf("rules=%d/%s", n, c.name), func(b *testing.B) {
				var scratch Scratch
				s.Judge(c.env, 0, &scratch)
				b.ReportAllocs()
				for b.Loop() {
					s.Judge(c.env, 0, &scratch)
				}
			})
		}
	}
}

// BenchmarkJudgeUndecided is the same with a rule that may differ from packet to packet,
// so that it must be found out whether the flow is decided.
func BenchmarkJudgeUndecided(b *testing.B) {
	for _, n := range []int{100, 1000} {
		s := load(b, typical(n)+"  - {name: undecided, when: tcp.rst && ip.ttl < 5, verdict: drop}\n")
		env := final(tcpPacket("10.1.2.3:40000", "203.0.113.9:443", packet.ACK), func(f *app.Facts) {
			f.Proto, f.TLS.SNI = app.ProtoTLS, "cdn.www.news.example"
		})
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			var scratch Scratch
			b.ReportAllocs()
			for b.Loop() {
				if s.Judge(env, 0, &scratch).PerFlow {
					b.Fatal("decided")
				}
			}
		})
	}
}

// BenchmarkJudgeLinear is the same without the index.
func BenchmarkJudgeLinear(b *testing.B) {
	for _, n := range []int{100, 1000} {
		s := linear(load(b, typical(n)))
		env := final(tcpPacket("10.1.2.3:40000", "203.0.113.9:443", packet.ACK), nil)
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			var scratch Scratch
			b.ReportAllocs()
			for b.Loop() {
				s.Judge(env, 0, &scratch)
			}
		})
	}
}

// BenchmarkCondition compares closures with cel-go's interpreter.
func BenchmarkCondition(b *testing.B) {
	v := words(b)
	condition, complaints := v.check(`tcp.dport == 443 && ip.src in list.office && (tls.sni.endsWith(".example") || tls.alpn.exists(a, a == "h2"))`)
	if len(complaints) > 0 {
		b.Fatal(complaints)
	}
	c := &compiler{vocabulary: v, checked: condition}
	compiled, err := c.cond(condition.root, askTrue)
	if err != nil {
		b.Fatal(err)
	}
	interpreted, err := c.interpret(condition.root)
	if err != nil {
		b.Fatal(err)
	}
	env := final(tcpPacket("10.1.2.3:40000", "203.0.113.9:443", packet.ACK), func(f *app.Facts) { f.TLS.ALPN = []string{"http/1.1", "h2"} })
	m := machineFor(env, asFlow)
	for name, t := range map[string]term{"compiled": compiled, "interpreted": interpreted} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if t.eval(m) != yes {
					b.Fatal("not true")
				}
			}
		})
	}
}

// BenchmarkLoad is the price of a reload.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 10000} {
		src := []byte(typical(n))
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := Load("bench.yaml", src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestJudgeAllocatesNothing pins what BenchmarkJudge shows.
func TestJudgeAllocatesNothing(t *testing.T) {
	s := load(t, typical(500)+"  - {name: odd, when: '\"bad-flags\" in ip.anomalies || ip.options.exists(o, o == \"hop-by-hop\")', verdict: drop}\n")
	odd := udpPacket("10.1.2.3:40000", "203.0.113.9:9")
	odd.Packet.Anomalies = packet.BadLen | packet.BadFlags
	odd.Packet.Options = packet.HopByHop | packet.SourceRoute
	envs := []*Env{
		final(tcpPacket("10.1.2.3:40000", "203.0.113.9:443", packet.ACK), func(f *app.Facts) { f.TLS.SNI = "a.site7.example" }),
		tcpPacket("10.1.2.3:40000", "203.0.113.9:443", packet.SYN),
		udpPacket("10.1.2.3:40000", "203.0.113.9:9"),
		odd,
		udpPacket("[2001:db8::1]:40000", "[2001:db8::2]:9"),
	}
	var scratch Scratch
	for _, e := range envs {
		s.Judge(e, 0, &scratch)
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, e := range envs {
			s.Judge(e, 0, &scratch)
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d packets", n, len(envs))
	}
}
