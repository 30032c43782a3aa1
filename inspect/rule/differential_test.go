package rule

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"inquest/inspect/app"
	"inquest/inspect/packet"
)

// words is what the random conditions of these tests can name.
func words(t testing.TB) *vocabulary {
	t.Helper()
	office, err := parseAddrSet([]string{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	ports := &portSet{}
	ports.add(80, 90)
	ports.add(443, 443)
	ads := &domainSet{entries: map[string]domainKind{}}
	for _, d := range []string{".example", "*.b.test", "a.test"} {
		if err := ads.add(d); err != nil {
			t.Fatal(err)
		}
	}
	v, err := newVocabulary(map[string]any{"office": office, "web": ports, "ads": ads}, []string{"one", "two"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// generator makes random conditions and packets from few values, so that they meet.
type generator struct{ *rand.Rand }

func pick[T any](g generator, of ...T) T { return of[g.IntN(len(of))] }

func (g generator) bool(depth int) string {
	if depth <= 0 {
		return pick(g, "true", "false", "tcp.syn", "tcp.ack", "tls.ech", "ip.fragment", "flow.reply", `pattern("one")`, `pattern("two")`, "dns.response")
	}
	d := depth - 1
	switch g.IntN(21) {
	case 0, 1, 2:
		return "(" + g.bool(d) + " && " + g.bool(d) + ")"
	case 3, 4, 5:
		return "(" + g.bool(d) + " || " + g.bool(d) + ")"
	case 6, 7:
		return "!" + g.bool(d)
	case 8:
		return "(" + g.bool(d) + " ? " + g.bool(d) + " : " + g.bool(d) + ")"
	case 9, 10:
		return "(" + g.int(d) + pick(g, " == ", " != ", " < ", " <= ", " > ", " >= ") + g.int(d) + ")"
	case 11:
		return "(" + g.text(d) + pick(g, " == ", " != ", " < ", " >= ") + g.text(d) + ")"
	case 12:
		return g.text(d) + pick(g, ".startsWith", ".endsWith", ".contains") + "(" + g.text(d) + ")"
	case 13:
		return g.text(d) + ".matches(" + pick(g, `"^a.*t$"`, `"b+"`, `""`) + ")"
	case 14:
		return "(" + g.int(d) + " in " + pick(g, "[80, 443, 22]", "[]", "list.web", "[1,2,3,4,5,6,7,8,9,80]") + ")"
	case 15:
		return "(" + g.text(d) + " in " + pick(g, `["a.test", "b.example"]`, "list.ads", "dns.names", "tls.alpn") + ")"
	case 16:
		return "(" + pick(g, "ip.src", "ip.dst", "flow.src") + pick(g, ` in "10.0.0.0/8"`, ` in ["192.0.2.1", "2001:db8::/32"]`, " in list.office",
			` == "10.0.0.1"`, ` != "10.0.0.1"`, ".isPrivate()") + ")"
	case 17:
		return pick(g, "dns.names", "tls.alpn", `["a", "b.test"]`) + pick(g, ".exists", ".all") + "(n, " + g.element(d) + ")"
	case 18:
		return "(" + g.bool(d) + pick(g, " == ", " != ") + g.bool(d) + ")"
	case 19:
		return "(payload" + pick(g, `.startsWith(b"GE")`, `.contains(b"T")`, ` == b"GET"`, `.endsWith(b"")`) + ")"
	default:
		return "(" + pick(g, `flow.age > "30s"`, `ip.proto == "udp"`, `ip.proto in ["tcp", 17]`, "size(tls.alpn) > 0", "tls.alpn.size() == 2",
			`tls.alpn.filter(a, a == "h2").size() == 1`, `tls.sni.lowerAscii() == "a.test"`, `tls.alpn.exists_one(a, a == "h2")`) + ")"
	}
}

// element is a condition on n, an element of a list.
func (g generator) element(depth int) string {
	switch g.IntN(6) {
	case 0:
		return "n == " + g.text(depth)
	case 1:
		return "n.endsWith(" + g.text(0) + ")"
	case 2:
		return "n in list.ads"
	case 3:
		return "(" + g.bool(depth-1) + " && n != " + g.text(0) + ")"
	case 4:
		return `tls.alpn.exists(m, m == n || ` + g.bool(0) + `)`
	default:
		return "(n == " + g.text(0) + " || " + g.bool(depth-1) + ")"
	}
}

func (g generator) int(depth int) string {
	if depth > 0 && g.IntN(3) == 0 {
		d := depth - 1
		switch g.IntN(5) {
		case 0:
			return "size(" + g.text(d) + ")"
		case 1:
			return "payload.at(" + g.int(d) + ")"
		case 2:
			return "math.bitAnd(" + g.int(d) + ", 3)"
		default:
			return "(" + g.int(d) + pick(g, " + ", " - ", " * ", " / ", " % ") + g.int(d) + ")"
		}
	}
	return pick(g, "tcp.dport", "udp.dport", "th.sport", "tcp.flags", "icmp.type", "ip.ttl", "flow.packets", "tls.version", "http.status", "meta.uid",
		"flow.dport", "meta.mark", "0", "80", "443", "-1", "9223372036854775807", "(-9223372036854775807 - 1)", "2")
}

func (g generator) text(depth int) string {
	if depth > 0 && g.IntN(5) == 0 {
		return pick(g, "tls.alpn", "dns.names") + "[" + g.int(0) + "]"
	}
	return pick(g, "tls.sni", "http.host", "meta.iifname", "app.proto", "flow.state", "dns.rcode", `"a.test"`, `"test"`, `"x.example"`, `""`, `"h2"`)
}

// env is a random packet with what is known of its flow.
func (g generator) env() *Env {
	p := &packet.Packet{
		Version: 4, TTL: pick[uint8](g, 1, 64), Proto: pick[uint8](g, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP),
		Src: g.addr(), Dst: g.addr(), HasTransport: g.IntN(8) > 0, Fragment: g.IntN(8) == 0,
		Payload: []byte(pick(g, "", "GET", "GET /", "T")),
	}
	if hasPorts(p.Proto) && p.HasTransport {
		p.SrcPort, p.DstPort = g.port(), g.port()
	}
	p.TCP.Flags = packet.Flags(g.IntN(32))
	p.ICMP.Type = pick[uint8](g, 0, 2, 80)
	e := &Env{Packet: p, Facts: &app.Facts{}, PatternsDone: g.IntN(2) == 0, Patterns: []uint64{uint64(g.IntN(4))}}
	e.Meta = &Meta{Mark: uint32(g.IntN(4)), In: pick(g, "", "eth0"), UID: 80, HasUID: g.IntN(2) == 0}
	g.change(e)
	if g.IntN(8) > 0 {
		e.Flow.Tuple = p.Tuple()
		if e.Flow.Reply = g.IntN(2) == 0; e.Flow.Reply {
			e.Flow.Tuple = e.Flow.Tuple.Reverse()
		}
		e.Flow.In = pick(g, "", "eth0")
	}
	f := e.Facts
	f.Known, f.Final = app.AllFields, app.AllFields
	switch g.IntN(4) {
	case 0:
		f.Known, f.Final = 0, 0
	case 1:
		f.Known = app.FieldSet(g.Uint64()) & app.AllFields
		f.Final = f.Known & app.FieldSet(g.Uint64())
	}
	g.learn(f, app.AllFields)
	return e
}

func (g generator) addr() netip.Addr {
	return netip.MustParseAddr(pick(g, "10.0.0.1", "10.1.2.3", "192.0.2.1", "198.51.100.7", "2001:db8::1", "2001:db9::1"))
}

func (g generator) port() uint16 { return pick[uint16](g, 22, 53, 80, 85, 443, 5000) }

// change gives a flow's next packet what may differ between packets.
func (g generator) change(e *Env) {
	p := e.Packet
	p.TTL = pick[uint8](g, 1, 64)
	p.TCP.Flags = packet.Flags(g.IntN(32))
	p.Payload = []byte(pick(g, "", "GET", "GET /", "T"))
	e.Flow.Packets, e.Flow.Age = uint64(g.IntN(100)), time.Duration(g.IntN(60))*time.Second
	e.Flow.State = pick(g, "new", "established")
	e.Meta.Mark = uint32(g.IntN(4))
}

// learn sets some facts to random values.
func (g generator) learn(f *app.Facts, fields app.FieldSet) {
	name := func() string { return pick(g, "", "a.test", "x.example", "y.b.test", "test", "c.a.test") }
	names := func() []string { return pick(g, nil, []string{name()}, []string{name(), name()}) }
	set := func(id app.FieldID, do func()) {
		if fields.Has(id) {
			do()
		}
	}
	set(app.FieldProto, func() { f.Proto = app.Proto(g.IntN(6)) })
	set(app.FieldTLSSNI, func() { f.TLS.SNI = name() })
	set(app.FieldTLSALPN, func() { f.TLS.ALPN = pick(g, nil, []string{"h2"}, []string{"h2", "http/1.1"}) })
	set(app.FieldTLSVersion, func() { f.TLS.Version = pick[uint16](g, 0, 2, 443) })
	set(app.FieldTLSECH, func() { f.TLS.ECH = g.IntN(2) == 0 })
	set(app.FieldHTTPHost, func() { f.HTTP.Host = name() })
	set(app.FieldHTTPStatus, func() { f.HTTP.Status = pick(g, 0, 80) })
	set(app.FieldDNSNames, func() { f.DNS.Names = names() })
	set(app.FieldDNSRCode, func() { f.DNS.RCode = name() })
	set(app.FieldDNSResponse, func() { f.DNS.Response = g.IntN(2) == 0 })
}

// machineFor is a machine that looks at e.
func machineFor(e *Env, v view) *machine {
	m := &machine{}
	m.load(e)
	m.look(v)
	m.hide = fromFacts &^ sources(m.facts.Known)
	return m
}

// TestCompiledAgreesWithInterpreter holds the closures against cel-go's interpreter.
func TestCompiledAgreesWithInterpreter(t *testing.T) {
	n := 4000
	if testing.Short() {
		n = 500
	}
	v := words(t)
	g := generator{rand.New(rand.NewPCG(1, 2))}
	outcomes := map[tri]int{}
	interpreted := 0
	for range n {
		text := g.bool(1 + g.IntN(4))
		interpreted += compareForms(t, v, text, g, outcomes)
	}
	for _, is := range []tri{no, yes, unknown, absent} {
		if outcomes[is] < n/50 {
			t.Errorf("only %d outcomes %d in %d conditions: the generator is too narrow", outcomes[is], is, n)
		}
	}
	if interpreted > n/3 {
		t.Errorf("%d of %d conditions needed the interpreter", interpreted, n)
	}
}

// compareForms compiles one condition in each form and compares what they say of random
// packets. It returns 1 when parts of it were left to the interpreter.
func compareForms(t *testing.T, v *vocabulary, text string, g generator, outcomes map[tri]int) int {
	t.Helper()
	condition, complaints := v.check(text)
	if len(complaints) > 0 {
		t.Fatalf("%s: %v", text, complaints)
	}
	c := &compiler{vocabulary: v, checked: condition}
	compiled, err := c.cond(condition.root, exact)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	interpreted := min(c.interpreted, 1)
	asked, err := c.cond(condition.root, askTrue)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	reference, err := c.interpret(condition.root)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	for range 8 {
		e := g.env()
		m := machineFor(e, view(g.IntN(3)))
		if g.IntN(4) == 0 {
			m.hide |= fromPacket | fromDevices | fromPatterns
		}
		want := reference.eval(m)
		if outcomes != nil {
			outcomes[want]++
		}
		if got := compiled.eval(m); got != want {
			t.Fatalf("%s\ncompiled %d, interpreted %d\npacket %+v\nfacts %+v\nhidden %x", text, got, want, e.Packet, e.Facts, m.hide)
		}
		// What is asked at the top of a rule: can it be true?
		got := asked.eval(m)
		if (got == yes) != (want == yes) || got == unknown && want != unknown {
			t.Fatalf("%s\nasked for truth %d, exactly %d\npacket %+v\nfacts %+v\nhidden %x", text, got, want, e.Packet, e.Facts, m.hide)
		}
		if want == unknown && got != unknown {
			known := e.Facts.Known
			hidden := m.hide
			for range 20 { // however the unknown turns out, it must not be true
				g.learn(e.Facts, ^known)
				if hidden&fromPacket != 0 {
					g.change(e)
				}
				m.hide = hidden & (fromDevices | fromPatterns)
				if reference.eval(m) == yes {
					t.Fatalf("%s\nwas said to be never true, and is\npacket %+v\nfacts %+v", text, e.Packet, e.Facts)
				}
			}
		}
	}
	return interpreted
}

// ruleFile is a random file of rules.
func (g generator) ruleFile(rules int) string {
	var b strings.Builder
	b.WriteString("default: accept\nlists: {office: [10.0.0.0/8, 192.0.2.1, \"2001:db8::/32\"], web: [80-90, 443], ads: [.example, \"*.b.test\", a.test]}\npatterns: {one: x, two: y}\nrules:\n")
	for i := range rules {
		fmt.Fprintf(&b, "  - name: r%d\n    verdict: %s\n    when: |\n      %s\n", i, pick(g, "accept", "drop", "reject"), g.condition())
		if g.IntN(4) == 0 {
			b.WriteString("    scope: packet\n")
		}
		if g.IntN(10) == 0 {
			b.WriteString("    disabled: true\n")
		}
	}
	return b.String()
}

// condition is one as people write them: a few conjuncts that an index can use, and more.
func (g generator) condition() string {
	atom := func() string {
		switch g.IntN(12) {
		case 0:
			return fmt.Sprintf("tcp.dport == %d", g.port())
		case 1:
			return fmt.Sprintf("(udp.dport == %d || tcp.dport == %d)", g.port(), g.port())
		case 2:
			return fmt.Sprintf("ip.src in %q", pick(g, "10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/0"))
		case 3:
			return fmt.Sprintf("ip.dst == %q", g.addr())
		case 4:
			return "tls.sni.endsWith(" + pick(g, `"test"`, `".test"`, `"x.example"`, `"a.test"`) + ")"
		case 5:
			return "tls.sni in list.ads"
		case 6:
			return `dns.names.exists(n, ` + pick(g, `n == "a.test"`, `n.endsWith(".b.test")`, `n in list.ads`, `n in ["test", "x.example"]`) + ")"
		case 7:
			return "tcp.dport in list.web"
		case 8:
			return `http.host == ` + pick(g, `"a.test"`, `"test"`)
		case 9:
			return fmt.Sprintf("th.sport in [%d, %d]", g.port(), g.port())
		case 10:
			return pick(g, "ip.src in list.office", `ip.proto == "icmp"`, "tcp.syn", "!tcp.ack", `"test" in dns.names`)
		default:
			return g.bool(2)
		}
	}
	text := atom()
	for range g.IntN(3) {
		text += pick(g, " && ", " && ", " || ") + atom()
	}
	return text
}

// linear is a set that holds every packet against every rule.
func linear(s *Set) *Set {
	l := *s
	everything := func(v view) *index {
		x := &index{header: newHeaderIndex(nil, nil, nil)}
		for i := range s.rules {
			if !s.rules[i].Disabled && s.compiled[i].view == v {
				x.header.always = append(x.header.always, int32(i))
			}
		}
		return x
	}
	l.byFlow, l.byPacket, l.restless = everything(asFlow), everything(asPacket), everything(asFlow)
	return &l
}

// TestIndexAgreesWithLinear holds the index against evaluating all rules in order, and
// what is said of flows against packets that come later.
func TestIndexAgreesWithLinear(t *testing.T) {
	sets, packets := 150, 100
	if testing.Short() {
		sets = 20
	}
	g := generator{rand.New(rand.NewPCG(3, 4))}
	var scratch Scratch
	lasting, matched, waiting := 0, 0, 0
	for range sets {
		src := g.ruleFile(1 + g.IntN(30))
		indexed, err := Load("random.yaml", []byte(src))
		if err != nil {
			t.Fatalf("%v\n%s", err, src)
		}
		all := linear(indexed)
		for range packets {
			e := g.env()
			got, want := indexed.Judge(e, 0, &scratch), all.Judge(e, 0, &scratch)
			if got != want {
				t.Fatalf("indexed %+v, linear %+v\n%s\npacket %+v\nflow %+v\nfacts %+v", got, want, src, e.Packet, e.Flow, e.Facts)
			}
			if got.Rule != Default {
				matched++
			}
			if got.Pending {
				waiting++
			}
			if !got.PerFlow {
				continue
			}
			lasting++
			for range 10 {
				g.next(e)
				if later := all.Judge(e, 0, &scratch); later.Rule != got.Rule || later.Verdict != got.Verdict {
					t.Fatalf("decided for the flow: %+v, later %+v\n%s\npacket %+v\nflow %+v\nfacts %+v", got, later, src, e.Packet, e.Flow, e.Facts)
				}
			}
		}
	}
	if total := sets * packets; lasting < total/20 || matched < total/10 || waiting < total/20 {
		t.Errorf("of %d packets %d matched, %d were pending, %d decided their flow: the generator is too narrow", total, matched, waiting, lasting)
	}
}

// next turns e into another packet of the same flow, later, in either direction.
func (g generator) next(e *Env) {
	if g.IntN(2) == 0 {
		*e = *answer(e)
		e.Flow.Reply = g.IntN(2) == 0
	}
	g.change(e)
	e.Meta.In, e.Meta.Out = pick(g, "", "eth0"), pick(g, "", "eth1")
	e.Meta.HasUID = g.IntN(2) == 0
	e.Packet.ICMP.Type = pick[uint8](g, 0, 2, 80)
	e.Packet.Fragment = g.IntN(4) == 0
	if !e.PatternsDone {
		e.Patterns[0] |= uint64(g.IntN(4))
		e.PatternsDone = g.IntN(4) == 0
	}
	f := e.Facts
	g.learn(f, ^f.Final)
	f.Known |= app.FieldSet(g.Uint64()) & app.AllFields
	f.Final |= f.Known & app.FieldSet(g.Uint64())
}
