package app

import (
	"crypto/tls"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestFields(t *testing.T) {
	var zero Facts
	for id, field := range Fields {
		if int(field.ID) != id || field.Name == "" || field.Doc == "" || strings.ContainsAny(field.Doc, "\n") {
			t.Errorf("field %d: %+v", id, field)
		}
		if Lookup(field.Name).ID != field.ID {
			t.Errorf("%s: found is %v", field.Name, Lookup(field.Name))
		}
		set := 0
		if field.String != nil && field.Type == String && field.String(&zero) == "" {
			set++
		}
		if field.Strings != nil && field.Type == Strings && field.Strings(&zero) == nil {
			set++
		}
		if field.Int != nil && field.Type == Int && field.Int(&zero) == 0 {
			set++
		}
		if field.Bool != nil && field.Type == Bool && !field.Bool(&zero) {
			set++
		}
		if set != 1 {
			t.Errorf("%s: %d accessors for its type %v", field.Name, set, field.Type)
		}
	}
	if Lookup("tls.") != nil {
		t.Error("found what is not there")
	}
	for _, a := range All {
		for _, f := range a.Fields {
			if !strings.HasPrefix(f.Name, a.Name+".") {
				t.Errorf("%s is a field of %s", f.Name, a.Name)
			}
		}
	}
}

// TestAccessors has every field read what a real flow says.
func TestAccessors(t *testing.T) {
	want := map[string]string{}
	read := func(f Facts) {
		for _, field := range Fields {
			if !strings.HasPrefix(field.Name, f.Proto.String()) {
				continue
			}
			switch field.Type {
			case String:
				want[field.Name] = field.String(&f)
			case Strings:
				want[field.Name] = strings.Join(field.Strings(&f), ",")
			case Int:
				if field.Int(&f) != 0 {
					want[field.Name] = "a number"
				}
			case Bool:
				if field.Bool(&f) {
					want[field.Name] = "true"
				}
			}
		}
	}
	hello := makeHello(0x0303, []uint16{0x1301}, []uint16{0, 16, 43, extEncryptedHello}, "a.example", []byte("h2"), nil, []uint16{0x0304})
	answer := append([]byte{0x16, 3, 3, 0, 53, 2, 0, 0, 49, 3, 3}, make([]byte, 33)...)
	answer = append(answer, 0xc0, 0x2f, 0, 0, 9, 0, 16, 0, 5, 0, 3, 2, 'h', '2')
	f, _ := inspect(t, tcpFlow, []chunk{{ToServer, record(hello)}, {ToClient, answer}})
	read(f)
	f, _ = inspect(t, quicFlow, []chunk{{ToServer, protect(t, 1, []byte("12345678"), nil, cryptoFrame(0, hello), 0, minInitial)}})
	read(f)
	f, _ = inspect(t, httpFlow, []chunk{request("GET /p HTTP/1.1", "Host: h", "User-Agent: u", "", ""), response("HTTP/1.1 200 OK", "", "")})
	read(f)
	f, _ = inspect(t, dnsFlow, []chunk{{ToClient, dnsResponse(t)}})
	read(f)
	f, _ = inspect(t, sshFlow, []chunk{{ToServer, []byte("SSH-2.0-c\n")}, {ToClient, []byte("SSH-1.99-s\n")}})
	read(f)
	for _, field := range Fields {
		if value := want[field.Name]; value == "" && !strings.HasPrefix(field.Name, "app.") {
			t.Errorf("%s is empty", field.Name)
		}
	}
	for name, value := range map[string]string{
		"tls.sni": "a.example", "tls.alpn": "h2", "tls.server_alpn": "h2", "quic.sni": "a.example", "quic.alpn": "h2",
		"http.method": "GET", "http.host": "h", "http.path": "/p", "http.user_agent": "u",
		"dns.names": "www.example.com", "dns.types": "A", "dns.rcode": "NOERROR", "dns.answers": "edge.example.net,192.0.2.1,2001:db8::1",
		"ssh.client": "SSH-2.0-c", "ssh.client_version": "2.0", "ssh.client_software": "c",
		"ssh.server": "SSH-1.99-s", "ssh.server_version": "1.99", "ssh.server_software": "s",
	} {
		if want[name] != value {
			t.Errorf("%s is %q, want %q", name, want[name], value)
		}
	}
}

func TestInspection(t *testing.T) {
	var i Inspection
	i.Start(Flow{Transport: 132})
	if !i.Facts.Done || i.Facts.Final != AllFields {
		t.Errorf("SCTP: %+v", i.Facts)
	}
	i.Start(tcpFlow)
	if i.Facts.Known != 0 || i.Facts.Done {
		t.Errorf("before any payload: %+v", i.Facts)
	}
	if _, changed := i.Feed(ToServer, []byte{0x16}); !changed || i.Facts.Known != Set(FieldGap) {
		t.Errorf("after one byte: %+v", i.Facts)
	}
	if n, changed := i.Feed(ToServer, []byte{0x99, 1, 2}); n != 3 || !changed || !i.Facts.Done || i.Facts.Proto != ProtoUnknown {
		t.Errorf("after a byte of nobody's: %+v", i.Facts)
	}
	if n, changed := i.Feed(ToServer, []byte{1, 2}); n != 2 || changed || i.Gap(ToServer, 1) {
		t.Errorf("afterwards: %+v", i.Facts)
	}
	// Facts outlive the inspection; a started one knows nothing of the last.
	i.Start(httpFlow)
	i.Feed(ToServer, []byte("GET /kept HTTP/1.1\r\n\r\n"))
	kept := i.Facts
	i.Close()
	i.Close()
	i.Start(httpFlow)
	i.Feed(ToServer, []byte("GET /other HTTP/1.1\r\n\r\n"))
	if kept.HTTP.Path != "/kept" || i.Facts.HTTP.Path != "/other" {
		t.Errorf("kept %q, now %q", kept.HTTP.Path, i.Facts.HTTP.Path)
	}
}

// TestStrays sends datagrams that servers ignore, or requests in a form that only some
// clients send, before or around what is looked for.
func TestStrays(t *testing.T) {
	query := packDNS(t, dnsmessage.Message{Questions: []dnsmessage.Question{dnsQuestion("hidden.example.", dnsmessage.TypeA)}})
	initial := protect(t, 1, []byte("12345678"), nil, cryptoFrame(0, quicHello()), 0, minInitial)
	junk := []chunk{{ToServer, []byte("?")}, {ToClient, []byte("!")}, {ToServer, slices.Repeat([]byte{0xff}, 1300)}}
	for _, flow := range []Flow{dnsFlow, quicFlow} {
		var i Inspection
		i.Start(flow)
		for _, c := range junk {
			i.Feed(c.dir, c.data)
		}
		if f := &i.Facts; f.Done || !f.Final.Has(FieldTLSSNI) || f.Known.Has(FieldProto) {
			t.Errorf("port %d: known %b, final %b", flow.ServerPort, f.Known, f.Final)
		}
	}
	if f, _ := inspect(t, dnsFlow, append(junk, chunk{ToServer, query})); !slices.Equal(f.DNS.Names, []string{"hidden.example"}) {
		t.Errorf("DNS: %+v", f)
	}
	if f, _ := inspect(t, quicFlow, append(junk, chunk{ToServer, initial})); f.Proto != ProtoQUIC || f.QUIC.SNI == "" {
		t.Errorf("QUIC: %+v", f)
	}
	if f, _ := inspect(t, quicFlow, slices.Repeat(junk[:1], maxStrays)); !f.Done || !f.Gap {
		t.Errorf("nothing but strays: %+v", f)
	}

	long := packDNS(t, dnsmessage.Message{
		Questions:   []dnsmessage.Question{dnsQuestion("hidden.example.", dnsmessage.TypeA)},
		Additionals: slices.Repeat([]dnsmessage.Resource{dnsRecord("a.", &dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 255)}})}, 30),
	})
	stream := append(binary.BigEndian.AppendUint16(nil, uint16(len(long))), long...)
	for _, size := range []int{1, 100, len(stream)} {
		if f, _ := inspect(t, dnsTCPFlow, cut([]chunk{{ToServer, stream}}, size)); !slices.Equal(f.DNS.Names, []string{"hidden.example"}) {
			t.Errorf("a long query over TCP, %d bytes at a time: %+v", size, f)
		}
	}
	blank := []chunk{request(strings.Repeat("\r\n", 40)+"GET / HTTP/1.1", "Host: hidden.example", "", "")}
	for _, size := range []int{1, 30, 1000} {
		if f, _ := inspect(t, httpFlow, cut(blank, size)); f.HTTP.Host != "hidden.example" {
			t.Errorf("behind empty lines, %d bytes at a time: %+v", size, f)
		}
	}
}

// TestBudget holds many hellos that never end.
func TestBudget(t *testing.T) {
	hello := record(makeHello(0x0303, nil, []uint16{0, 21}, strings.Repeat("a", 3000), nil, nil, nil))
	budget := NewBudget(20 << 10)
	flows := make([]Inspection, 20)
	full := 0
	for k := range flows {
		i := &flows[k]
		i.Start(Flow{Transport: TCP, Budget: budget})
		i.Feed(ToServer, hello[:2000])
		i.Feed(ToServer, hello[2000:len(hello)-1])
		if i.Facts.Gap {
			full++
		}
		if held := budget.Held(); held > 20<<10 {
			t.Fatalf("%d bytes are held", held)
		}
	}
	if full == 0 || full == len(flows) {
		t.Errorf("%d of %d flows were given up", full, len(flows))
	}
	for k := range flows {
		flows[k].Close()
	}
	if held := budget.Held(); held != 0 {
		t.Errorf("%d bytes are held by nobody", held)
	}
	for _, flow := range []Flow{{Transport: UDP, Budget: NewBudget(10)}, {Transport: TCP, Budget: NewBudget(10)}} {
		for _, data := range [][]byte{
			protect(t, 1, []byte("12345678"), nil, cryptoFrame(0, hello[5:500]), 0, minInitial),
			[]byte("GET / HTTP/1.1\r\nHost: a"),
			unhex(t, "0020 0001 0100 0001 0000 0000 0000 61"),
		} {
			if f, _ := inspect(t, flow, []chunk{{ToServer, data}}); f.Proto != ProtoUnknown && !f.Gap {
				t.Errorf("%v: nothing is to be had, yet %+v", flow.Transport, f)
			}
		}
	}
}

// TestAllocations: what is not recognised, and bytes that say nothing, cost none.
func TestAllocations(t *testing.T) {
	body, words := make([]byte, 1460), []byte("EHLO a.example\r\n")
	var i, open Inspection
	open.Start(httpFlow)
	open.Feed(ToServer, []byte("POST / HTTP/1.1\r\nContent-Length: 900000000000000000\r\n\r\n"))
	hello, _ := handshake(t, &tls.Config{ServerName: "www.example"}, &tls.Config{})
	split := slices.Clone(hello[0].data)
	patterns := mustPatterns(t, []Pattern{{"a", Literal, "attack"}, {"b", Fold, "evil"}})
	var scan Scan
	for name, run := range map[string]func(){
		"nobody's stream":   func() { i.Start(tcpFlow); i.Feed(ToServer, body); i.Close() },
		"nobody's datagram": func() { i.Start(quicFlow); i.Feed(ToServer, body); i.Close() },
		"words":             func() { i.Start(tcpFlow); i.Feed(ToServer, words); i.Close() },
		"half a hello":      func() { i.Start(tcpFlow); i.Feed(ToServer, split[:100]); i.Feed(ToServer, split[100:120]); i.Close() },
		"a body":            func() { open.Feed(ToServer, body) },
		"patterns":          func() { patterns.Search(&scan, ToServer, body) },
	} {
		run()
		if n := testing.AllocsPerRun(100, run); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkUnknown is what a flow costs that is nobody's.
func BenchmarkUnknown(b *testing.B) {
	data := []byte("\x05\x01\x00 and whatever else")
	b.ReportAllocs()
	var i Inspection
	for b.Loop() {
		i.Start(tcpFlow)
		i.Feed(ToServer, data)
		i.Feed(ToClient, data)
		i.Close()
	}
	if !i.Facts.Done {
		b.Fatal(i.Facts)
	}
}
