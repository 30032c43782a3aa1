package app

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

var (
	dnsFlow    = Flow{Transport: UDP, ClientPort: 50000, ServerPort: 53}
	dnsTCPFlow = Flow{Transport: TCP, ClientPort: 50000, ServerPort: 53}
	oddDNSFlow = Flow{Transport: UDP, ClientPort: 50000, ServerPort: 9999}
)

func packDNS(t testing.TB, m dnsmessage.Message) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func dnsQuestion(name string, kind dnsmessage.Type) dnsmessage.Question {
	return dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}
}

func dnsRecord(name string, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: 60}, Body: body}
}

func optRecord(t testing.TB) dnsmessage.Resource {
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(1232, dnsmessage.RCodeSuccess, true); err != nil {
		t.Fatal(err)
	}
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}}
}

func dnsResponse(t testing.TB) []byte {
	return packDNS(t, dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{dnsQuestion("Www.Example.com.", dnsmessage.TypeA)},
		Answers: []dnsmessage.Resource{
			dnsRecord("www.example.com.", &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("Edge.example.net.")}),
			dnsRecord("edge.example.net.", &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}),
			dnsRecord("edge.example.net.", &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}),
			dnsRecord("edge.example.net.", &dnsmessage.TXTResource{TXT: []string{"text"}}),
		},
		Additionals: []dnsmessage.Resource{optRecord(t)},
	})
}

func TestDNS(t *testing.T) {
	query := packDNS(t, dnsmessage.Message{
		Header:      dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions:   []dnsmessage.Question{dnsQuestion("Www.Example.com.", dnsmessage.TypeA)},
		Additionals: []dnsmessage.Resource{optRecord(t)},
	})
	root := packDNS(t, dnsmessage.Message{Questions: []dnsmessage.Question{dnsQuestion(".", 65)}})
	nx := packDNS(t, dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 8, Response: true, RCode: dnsmessage.RCodeNameError},
		Questions: []dnsmessage.Question{dnsQuestion("a.example.", 1234)},
	})
	header := "0001 0100 0001 0000 0000 0000"
	for _, test := range []struct {
		name string
		flow Flow
		data []byte
		want string
		gap  bool
	}{
		{"query", dnsFlow, query, "{7 false true [www.example.com] [A]  []}", false},
		{"query elsewhere", oddDNSFlow, query, "{7 false true [www.example.com] [A]  []}", false},
		{"root", dnsFlow, root, "{0 false false [.] [HTTPS]  []}", false},
		{"response", dnsFlow, dnsResponse(t), "{7 true true [www.example.com] [A] NOERROR [edge.example.net 192.0.2.1 2001:db8::1]}", false},
		{"no such name", dnsFlow, nx, "{8 true false [a.example] [TYPE1234] NXDOMAIN []}", false},
		{"odd bytes", dnsFlow, unhex(t, header+"06 612e5c 20 ff 41 00 0001 0001"), `{1 false false [a\.\\\032\255a] [A]  []}`, false},
		{"trailing bytes", dnsFlow, append(slices.Clone(root), 1, 2), "{0 false false [.] [HTTPS]  []}", false},
		{"trailing bytes elsewhere", oddDNSFlow, append(slices.Clone(root), 1, 2), "not DNS", false},
		{"a response elsewhere, first", oddDNSFlow, nx, "not DNS", false},
		{"endless pointer", dnsFlow, unhex(t, header+"c00c 0001 0001"), "{1 false false [] [A]  []}", true},
		{"forward pointer", dnsFlow, unhex(t, header+"c00e 0001 0001 00"), "{1 false false [] [A]  []}", true},
		{"pointer into the header", dnsFlow, unhex(t, header+"c002 0001 0001"), `{1 false false [\000] [A]  []}`, false},
		{"cut name", dnsFlow, unhex(t, header+"0561"), "not DNS", false},
		{"long name", dnsFlow, append(append(unhex(t, header), strings.Repeat("\x0fabcdefghijklmno", 17)...), unhex(t, "00 0001 0001")...), "{1 false false [] [A]  []}", true},
		{"many questions", dnsFlow, append(unhex(t, "0001 0100 0021 0000 0000 0000"), []byte(strings.Repeat("\x01a\x00\x00\x01\x00\x01", 33))...),
			"{1 false false [" + strings.TrimSpace(strings.Repeat("a ", 32)) + "] [" + strings.TrimSpace(strings.Repeat("A ", 32)) + "]  []}", true},
		{"truncated", dnsFlow, unhex(t, "0001 8300 0001 0002 0000 0000 0161 00 0001 0001"), "{1 true false [a] [A] NOERROR []}", false},
		{"fewer records than said", dnsFlow, unhex(t, "0001 8100 0001 0002 0000 0000 0161 00 0001 0001"), "not DNS", false},
		{"unknown opcode", dnsFlow, unhex(t, "0001 7800 0000 0000 0000 0000"), "not DNS", false},
		{"extended code", dnsFlow, unhex(t, "0001 8000 0000 0000 0000 0001 00 0029 0000 01000000 0000"), "{1 true true [] [] BADVERS []}", false},
		{"unknown code", dnsFlow, unhex(t, "0001 800c 0000 0000 0000 0000"), "{1 true false [] [] RCODE12 []}", false},
		{"text", oddDNSFlow, []byte("just some words that are longer than a header"), "not DNS", false},
		{"short", dnsFlow, []byte("short"), "not DNS", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, _ := inspect(t, test.flow, []chunk{{ToServer, test.data}})
			got := strings.ReplaceAll(fmt.Sprint(f.DNS), "[]string(nil)", "[]")
			if f.Proto != ProtoDNS {
				got = "not DNS"
			}
			if got != test.want || f.Gap != test.gap || f.Done != (f.Proto == ProtoUnknown && test.flow == oddDNSFlow) {
				t.Errorf("got %s, gap %v, done %v\nwant %s", got, f.Gap, f.Done, test.want)
			}
			if f.Proto == ProtoDNS && (!f.Known.Has(FieldDNSNames) || f.Final.Has(FieldDNSNames) || !f.Final.Has(FieldTLSSNI)) {
				t.Errorf("known %b, final %b", f.Known, f.Final)
			}
		})
	}
	// A datagram that is malformed has no facts; the next has.
	f, changes := inspect(t, dnsFlow, []chunk{{ToServer, query}, {ToServer, []byte("?")}, {ToClient, dnsResponse(t)}})
	if len(changes) != 3 || changes[1].DNS.Names != nil || len(f.DNS.Answers) != 3 || !f.Gap {
		t.Errorf("got %+v", changes)
	}
}

// TestDNSStream sends several messages over TCP, in pieces.
func TestDNSStream(t *testing.T) {
	var client, server []byte
	var want []string
	add := func(to []byte, m []byte) []byte {
		return append(binary.BigEndian.AppendUint16(to, uint16(len(m))), m...)
	}
	for i := range 5 {
		name := fmt.Sprintf("n%d.example.", i)
		client = add(client, packDNS(t, dnsmessage.Message{Questions: []dnsmessage.Question{dnsQuestion(name, dnsmessage.TypeMX)}}))
		want = append(want, strings.TrimSuffix(name, "."))
	}
	for range 3 {
		server = add(server, dnsResponse(t))
		want = append(want, "www.example.com")
	}
	for _, flow := range []Flow{dnsTCPFlow, {Transport: TCP, ClientPort: 1, ServerPort: 2}} {
		for _, size := range []int{1, 2, 3, 14, 30, 1000} {
			f, changes := inspect(t, flow, cut([]chunk{{ToServer, client}, {ToClient, server}}, size))
			var got []string
			version := uint32(0)
			for _, f := range changes {
				if f.Known.Has(FieldDNSNames) && f.version != version {
					got = append(got, f.DNS.Names...)
					version = f.version
				}
			}
			if !slices.Equal(got, want) || f.Gap || f.Done || f.Proto != ProtoDNS {
				t.Errorf("in pieces of %d: got %v, want %v", size, got, want)
			}
		}
	}
	empty := append(slices.Clone(client), 0, 0)
	f, changes := inspect(t, dnsTCPFlow, []chunk{{ToServer, empty}, {ToServer, client}})
	if !f.Gap || f.DNS.Names[0] != "n4.example" || len(changes) != 11 {
		t.Errorf("behind a message of no length: %+v", f)
	}
	var i Inspection
	i.Start(dnsTCPFlow)
	i.Feed(ToServer, client[:40])
	i.Gap(ToServer, 3)
	if i.Facts.Done || !i.Facts.Gap {
		t.Errorf("got %+v", i.Facts)
	}
	if i.Gap(ToClient, 3); !i.Facts.Done {
		t.Errorf("got %+v", i.Facts)
	}
}

// dnsByParser is what x/net finds in a message that it takes whole.
func dnsByParser(b []byte) (f DNSFacts, ok bool) {
	var m dnsmessage.Message
	if m.Unpack(b) != nil {
		return f, false
	}
	name := func(n dnsmessage.Name) string {
		if n.String() == "." {
			return "."
		}
		return strings.TrimSuffix(strings.ToLower(n.String()), ".")
	}
	f.ID, f.Response = m.ID, m.Response
	for _, q := range m.Questions {
		f.Names = append(f.Names, name(q.Name))
		f.Types = append(f.Types, typeName(uint16(q.Type)))
	}
	if m.Response {
		code := m.RCode
		for _, a := range m.Answers {
			switch body := a.Body.(type) {
			case *dnsmessage.AResource:
				if a.Header.Length != 4 {
					return f, false // x/net does not mind
				}
				f.Answers = append(f.Answers, netip.AddrFrom4(body.A).String())
			case *dnsmessage.AAAAResource:
				if a.Header.Length != 16 {
					return f, false
				}
				f.Answers = append(f.Answers, netip.AddrFrom16(body.AAAA).String())
			case *dnsmessage.CNAMEResource:
				f.Answers = append(f.Answers, name(body.CNAME))
			}
		}
		for _, a := range m.Additionals {
			if a.Header.Type == dnsmessage.TypeOPT {
				// RFC 6891, 6.1.3; x/net's ExtendedRCode knows version 0 alone.
				code = dnsmessage.RCode(a.Header.TTL>>24<<4) | m.RCode
			}
		}
		f.RCode = rcodeName(uint16(code))
	}
	for _, a := range m.Additionals {
		f.EDNS = f.EDNS || a.Header.Type == dnsmessage.TypeOPT
	}
	return f, true
}

func FuzzDNS(f *testing.F) {
	f.Add(dnsResponse(f), uint8(3))
	f.Add(unhex(f, "0001 8300 0001 0002 0000 0000 0161 00 0001 0001"), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		got, _ := inspect(t, dnsFlow, []chunk{{ToServer, data}})
		if want, ok := dnsByParser(data); ok && got.Proto == ProtoDNS && !got.Gap && plainNames(want) {
			if fmt.Sprint(got.DNS) != fmt.Sprint(want) {
				t.Errorf("got  %+v\nwant %+v", got.DNS, want)
			}
		}
		stream := append(binary.BigEndian.AppendUint16(nil, uint16(len(data))), data...)
		stream = append(append(stream, data...), stream...)
		both := []chunk{{ToServer, stream}, {ToClient, stream}}
		whole, _ := inspect(t, dnsTCPFlow, both)
		pieces, _ := inspect(t, dnsTCPFlow, cut(both, int(size)+1))
		if !sameFacts(&whole, &pieces) {
			t.Errorf("in pieces of %d:\ngot  %+v\nwant %+v", int(size)+1, pieces, whole)
		}
	})
}

// plainNames reports whether names have no bytes that are escaped, which x/net leaves
// as they are, nor empty labels.
func plainNames(f DNSFacts) bool {
	for _, s := range append(slices.Clone(f.Names), f.Answers...) {
		for _, c := range []byte(s) {
			if c <= ' ' || c >= 0x7f || c == '\\' {
				return false
			}
		}
		if s != "." && (strings.Contains(s, "..") || strings.HasPrefix(s, ".")) {
			return false
		}
	}
	return true
}

// TestDNSRandom packs messages with x/net and reads them.
func TestDNSRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	name := func() string {
		var labels []string
		for range 1 + random.IntN(4) {
			labels = append(labels, strings.Repeat(string(rune('a'+random.IntN(3))), 1+random.IntN(20)))
		}
		return strings.Join(labels, ".") + "."
	}
	for range 1000 {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(random.Uint32()), Response: random.IntN(2) == 0, RCode: dnsmessage.RCode(random.IntN(16))}}
		m.Questions = append(m.Questions, dnsQuestion(name(), dnsmessage.Type(1+random.IntN(70))))
		for range random.IntN(5) {
			m.Answers = append(m.Answers, dnsRecord(name(), []dnsmessage.ResourceBody{
				&dnsmessage.AResource{A: [4]byte{1, 2, 3, byte(random.IntN(256))}},
				&dnsmessage.AAAAResource{AAAA: [16]byte{0x20, 15: byte(random.IntN(256))}},
				&dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(name())},
				&dnsmessage.MXResource{MX: dnsmessage.MustNewName(name())},
			}[random.IntN(4)]))
		}
		if random.IntN(2) == 0 {
			m.Additionals = append(m.Additionals, optRecord(t))
		}
		b := packDNS(t, m)
		want, ok := dnsByParser(b)
		f, _ := inspect(t, dnsFlow, []chunk{{ToServer, b}})
		if !ok || fmt.Sprint(f.DNS) != fmt.Sprint(want) || f.Gap {
			t.Fatalf("%+v\ngot  %+v\nwant %+v", m, f.DNS, want)
		}
	}
}

func BenchmarkDNS(b *testing.B) {
	response := dnsResponse(b)
	query := packDNS(b, dnsmessage.Message{Questions: []dnsmessage.Question{dnsQuestion("www.example.com.", dnsmessage.TypeA)}})
	for _, test := range []struct {
		name string
		data []byte
	}{{"query", query}, {"response", response}} {
		b.Run(test.name, func(b *testing.B) {
			b.SetBytes(int64(len(test.data)))
			b.ReportAllocs()
			var i Inspection
			i.Start(dnsFlow)
			for b.Loop() {
				i.Feed(ToServer, test.data)
			}
			if i.Facts.DNS.Names[0] != "www.example.com" {
				b.Fatal(i.Facts)
			}
			i.Close()
		})
	}
}
