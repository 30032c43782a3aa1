package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// chunk is what one side sent at once.
type chunk struct {
	dir  Dir
	data []byte
}

// tap notes what both sides of a connection write, in order.
type tap struct {
	mu     sync.Mutex
	chunks []chunk
}

type tapConn struct {
	net.Conn
	tap *tap
	dir Dir
}

func (c tapConn) Write(b []byte) (int, error) {
	c.tap.mu.Lock()
	c.tap.chunks = append(c.tap.chunks, chunk{c.dir, slices.Clone(b)})
	c.tap.mu.Unlock()
	return c.Conn.Write(b)
}

// tapped is a pair of connected ends whose writes are noted.
func tapped(t testing.TB) (client, server net.Conn, taps *tap) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	taps = new(tap)
	return tapConn{c, taps, ToServer}, tapConn{s, taps, ToClient}, taps
}

var testCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"*.example", "example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// handshake makes one with crypto/tls and returns what was sent, and what the client
// came to know.
func handshake(t testing.TB, client, server *tls.Config) ([]chunk, tls.ConnectionState) {
	t.Helper()
	server.Certificates = []tls.Certificate{testCertificate()}
	client.InsecureSkipVerify = true
	c, s, tap := tapped(t)
	defer c.Close()
	defer s.Close()
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(s, server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("hello"))
		}
		done <- err
	}()
	conn := tls.Client(c, client)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return tap.chunks, conn.ConnectionState()
}

var tcpFlow = Flow{Transport: TCP, ClientPort: 50000, ServerPort: 443}

// inspect feeds chunks as they are, and gives the facts as they were at each change.
func inspect(t testing.TB, flow Flow, chunks []chunk) (facts Facts, changes []Facts) {
	t.Helper()
	var i Inspection
	i.Start(flow)
	defer i.Close()
	for _, c := range chunks {
		for data := c.data; len(data) > 0; {
			n, changed := i.Feed(c.dir, data)
			if n <= 0 || n > len(data) {
				t.Fatalf("Feed read %d of %d bytes", n, len(data))
			}
			if data = data[n:]; changed {
				changes = append(changes, i.Facts)
			}
			if i.Facts.Final&^i.Facts.Known != 0 {
				t.Fatalf("final but not known: %b", i.Facts.Final&^i.Facts.Known)
			}
			if i.Facts.Done != (i.Facts.Final == AllFields) {
				t.Fatalf("Done %v, final %b", i.Facts.Done, i.Facts.Final)
			}
		}
	}
	return i.Facts, changes
}

// cut divides chunks into pieces of size bytes.
func cut(chunks []chunk, size int) []chunk {
	var out []chunk
	for _, c := range chunks {
		for piece := range slices.Chunk(c.data, size) {
			out = append(out, chunk{c.dir, piece})
		}
	}
	return out
}

func TestTLSHandshakes(t *testing.T) {
	for _, min := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
		for _, max := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			for _, serverMax := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
				for _, name := range []string{"", "www.example", "WWW.Example."} {
					for _, protocols := range [][]string{nil, {"h2", "http/1.1"}, {"x-own"}} {
						if min > max || serverMax < min {
							continue
						}
						label := fmt.Sprintf("%#x-%#x to %#x, %q, %v", min, max, serverMax, name, protocols)
						checkHandshake(t, label, &tls.Config{
							MinVersion: min, MaxVersion: max, ServerName: name, NextProtos: protocols,
						}, &tls.Config{
							MinVersion: tls.VersionTLS10, MaxVersion: serverMax, NextProtos: protocols,
						})
					}
				}
			}
		}
	}
	// A server that knows no group of the client's first guess asks it to try again.
	checkHandshake(t, "hello retry request",
		&tls.Config{ServerName: "www.example", CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP384}},
		&tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}})
}

func checkHandshake(t *testing.T, label string, client, server *tls.Config) {
	t.Helper()
	var seen *tls.ClientHelloInfo
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		seen = h
		return nil, nil
	}
	chunks, state := handshake(t, client, server)
	f, changes := inspect(t, tcpFlow, chunks)
	want := TLSFacts{
		SNI:           strings.ToLower(seen.ServerName),
		ALPN:          seen.SupportedProtos,
		Version:       slices.Max(seen.SupportedVersions),
		JA4:           f.TLS.JA4,
		ServerVersion: state.Version,
		ServerCipher:  state.CipherSuite,
	}
	if state.Version < tls.VersionTLS13 {
		want.ServerALPN = state.NegotiatedProtocol
	}
	if fmt.Sprint(f.TLS) != fmt.Sprint(want) || f.Proto != ProtoTLS || !f.Done || f.Gap {
		t.Errorf("%s:\ngot  %+v\nwant %+v", label, f, want)
	}
	var ciphers, extensions int
	for _, v := range seen.CipherSuites {
		if !grease(v) {
			ciphers++
		}
	}
	for _, v := range seen.Extensions {
		if !grease(v) {
			extensions++
		}
	}
	if want := fmt.Sprintf("%02d%02d", ciphers, extensions); f.TLS.JA4[4:8] != want {
		t.Errorf("%s: JA4 %s, want counts %s", label, f.TLS.JA4, want)
	}

	// The client's facts are final before the server has said anything.
	before := changes[0]
	if !before.Final.Has(FieldTLSSNI) || before.Known.Has(FieldTLSServerVersion) || before.Done || !before.Final.Has(FieldHTTPHost) {
		t.Errorf("%s: after the ClientHello known %b, final %b", label, before.Known, before.Final)
	}
	for _, size := range []int{1, 2, 3, 7, 100} {
		if g, _ := inspect(t, tcpFlow, cut(chunks, size)); !sameFacts(&f, &g) {
			t.Errorf("%s in pieces of %d:\ngot  %+v\nwant %+v", label, size, g, f)
		}
	}
}

// sameFacts compares all that is exported.
func sameFacts(a, b *Facts) bool {
	x, y := *a, *b
	x.version, y.version = 0, 0
	return fmt.Sprintf("%#v", x) == fmt.Sprintf("%#v", y)
}

// TestTLSRecords cuts a hello into records of its own.
func TestTLSRecords(t *testing.T) {
	chunks, _ := handshake(t, &tls.Config{ServerName: "www.example", NextProtos: []string{"h2"}}, &tls.Config{})
	want, _ := inspect(t, tcpFlow, chunks)
	hello := chunks[0].data[recordHeader:]
	for _, size := range []int{1, 3, 4, 5, 50, 1000} {
		var records []byte
		for part := range slices.Chunk(hello, size) {
			records = append(records, recordHandshake, 3, 1, byte(len(part)>>8), byte(len(part)))
			records = append(records, part...)
		}
		cutHello := append([]chunk{{ToServer, records}}, chunks[1:]...)
		for _, piece := range []int{1, 6, 1 << 20} {
			if got, _ := inspect(t, tcpFlow, cut(cutHello, piece)); !sameFacts(&got, &want) {
				t.Errorf("records of %d in pieces of %d:\ngot  %+v\nwant %+v", size, piece, got, want)
			}
		}
	}
}

// TestTLSSkipped has before and between the records of a ClientHello what servers do not
// mind, so that it must not hide the hello.
func TestTLSSkipped(t *testing.T) {
	hello := makeHello(0x0303, []uint16{0x1301}, []uint16{0, 43}, "hidden.example", nil, nil, []uint16{0x0304})
	const warning = "\x15\x03\x01\x00\x02\x01\x70" // unrecognized_name
	const empty = "\x16\x03\x01\x00\x00"
	whole := string(record(hello))
	first, second := string(record(hello[:9])), string(record(hello[9:]))
	for name, stream := range map[string]string{
		"minor version 255":   "\x16\x03\xff" + whole[3:],
		"major version 5":     "\x16\x05\x05" + whole[3:],
		"a warning":           warning + whole,
		"many warnings":       strings.Repeat(warning, 10) + whole,
		"a warning within":    first + warning + second,
		"empty records":       strings.Repeat(empty, 10) + whole,
		"empty record within": first + empty + second,
	} {
		for _, size := range []int{1, 7, len(stream)} {
			chunks := cut([]chunk{{ToServer, []byte(stream)}}, size)
			if f, _ := inspect(t, tcpFlow, chunks); f.Proto != ProtoTLS || f.TLS.SNI != "hidden.example" || f.Gap {
				t.Errorf("%s, %d bytes at a time: %v %q, gap %v", name, size, f.Proto, f.TLS.SNI, f.Gap)
			}
		}
	}
	// Servers that do not know the name warn before their hello.
	answer := string(append([]byte{0x16, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3}, make([]byte, 36)...))
	f, _ := inspect(t, tcpFlow, []chunk{{ToServer, []byte(whole)}, {ToClient, []byte(warning + answer)}})
	if f.Gap || f.TLS.ServerVersion != 0x0303 {
		t.Errorf("hello behind a warning: version %#x, gap %v", f.TLS.ServerVersion, f.Gap)
	}
	const fatal = "\x15\x03\x03\x00\x02\x02\x28"
	if f, _ := inspect(t, tcpFlow, []chunk{{ToServer, []byte(whole)}, {ToClient, []byte(fatal)}}); !f.Done {
		t.Error("more is expected behind a fatal alert")
	}
}

func TestTLSEnds(t *testing.T) {
	chunks, _ := handshake(t, &tls.Config{ServerName: "www.example"}, &tls.Config{})
	hello := chunks[0].data
	sslv2 := unhex(t, "80 2e 01 00 02 00 15 00 00 00 10 01 00 80 03 00 80 07 00 c0 06 00 40 02 00 80 04 00 80")
	huge := []byte{recordHandshake, 3, 1, 0x40, 0, msgClientHello, 0x7f, 0xff, 0xff}
	for _, test := range []struct {
		name   string
		chunks []chunk
		proto  Proto
		sni    string
		done   bool
		gap    bool
	}{
		{"nothing", nil, ProtoUnknown, "", false, false},
		{"half a hello", []chunk{{ToServer, hello[:100]}}, ProtoTLS, "", false, false},
		{"hello alone", chunks[:1], ProtoTLS, "www.example", false, false},
		{"alert in answer", []chunk{chunks[0], {ToClient, unhex(t, "15 0303 0002 0228")}}, ProtoTLS, "www.example", true, true},
		{"answer in clear", []chunk{chunks[0], {ToClient, []byte("HTTP/1.1 400 Bad Request\r\n")}}, ProtoTLS, "www.example", true, true},
		{"server first", []chunk{{ToClient, []byte("220 mail.example ESMTP\r\n")}, chunks[0]}, ProtoUnknown, "", true, false},
		{"SSLv2", []chunk{{ToServer, sslv2}}, ProtoUnknown, "", true, false},
		{"record without content", []chunk{{ToServer, unhex(t, "16 0301 0000")}}, ProtoTLS, "", false, false},
		{"more than a hello", []chunk{{ToServer, append(huge, make([]byte, 0x3fff)...)}}, ProtoTLS, "", false, true},
		{"cut extension", []chunk{{ToServer, append(slices.Clone(hello[:len(hello)-1]), 0xff)}}, ProtoTLS, "www.example", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, _ := inspect(t, tcpFlow, test.chunks)
			if f.Proto != test.proto || f.TLS.SNI != test.sni || f.Done != test.done || f.Gap != test.gap {
				t.Errorf("got proto %v, sni %q, done %v, gap %v", f.Proto, f.TLS.SNI, f.Done, f.Gap)
			}
		})
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// makeHello builds a ClientHello, as a handshake message, from the lists that JA4 is
// made of.
func makeHello(version uint16, ciphers, extensions []uint16, sni string, alpn []byte, algorithms []uint16, versions []uint16) []byte {
	pair := func(v int) []byte { return []byte{byte(v >> 8), byte(v)} }
	block := func(b []byte) []byte { return append(pair(len(b)), b...) }
	list := func(values []uint16) (b []byte) {
		for _, v := range values {
			b = append(b, pair(int(v))...)
		}
		return b
	}
	var exts []byte
	for _, kind := range extensions {
		var data []byte
		switch kind {
		case extServerName:
			data = block(append([]byte{0}, block([]byte(sni))...))
		case extALPN:
			data = block(append([]byte{byte(len(alpn))}, alpn...))
		case extSignatureAlgorithms:
			data = block(list(algorithms))
		case extSupportedVersions:
			data = append([]byte{byte(2 * len(versions))}, list(versions)...)
		}
		exts = append(append(exts, pair(int(kind))...), block(data)...)
	}
	body := append(pair(int(version)), make([]byte, 32)...)
	body = append(body, 0)
	body = append(append(body, block(list(ciphers))...), 1, 0)
	body = append(body, block(exts)...)
	return append([]byte{msgClientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

func record(message []byte) []byte {
	return append([]byte{recordHandshake, 3, 1, byte(len(message) >> 8), byte(len(message))}, message...)
}

// TestJA4 has the examples of the specification.
func TestJA4(t *testing.T) {
	ciphers := []uint16{0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035}
	extensions := []uint16{0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0xfafa}
	without := slices.DeleteFunc(slices.Clone(extensions), func(v uint16) bool { return v == extSignatureAlgorithms })
	algorithms := []uint16{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601}
	versions := []uint16{0x0a0a, 0x0304, 0x0303}
	many := make([]uint16, 120)
	for i := range many {
		many[i] = uint16(i)
	}
	for _, test := range []struct {
		name  string
		hello []byte
		want  string
	}{
		{"the specification's", makeHello(0x0303, ciphers, extensions, "a.example", []byte("h2"), algorithms, versions), "t13d1516h2_8daaf6152771_e5627efa2ab1"},
		{"http/1.1", makeHello(0x0303, ciphers, extensions, "a.example", []byte("http/1.1"), algorithms, versions), "t13d1516h1_8daaf6152771_e5627efa2ab1"},
		{"no algorithms", makeHello(0x0303, ciphers, without, "a.example", []byte("h2"), nil, versions), "t13d1515h2_8daaf6152771_"},
		{"nothing", makeHello(0x0301, nil, nil, "", nil, nil, nil), "t10i000000_000000000000_000000000000"},
		{"only GREASE", makeHello(0x0300, []uint16{0x0a0a}, []uint16{0x1a1a}, "", nil, nil, nil), "ts3i000000_000000000000_000000000000"},
		{"only name and protocol", makeHello(0x0002, ciphers, []uint16{0, 16}, "a", []byte{0xab}, nil, nil), "ts2d1502ab_8daaf6152771_000000000000"},
		{"more than fit", makeHello(0x0302, many, many[20:], "", nil, nil, nil), "t11i9999"},
		{"ALPN 20", makeHello(0x0303, ciphers, []uint16{16}, "", []byte{0x20}, nil, nil), "t12i150120_"},
		{"ALPN ab cd", makeHello(0x0303, ciphers, []uint16{16}, "", []byte{0xab, 0xcd}, nil, nil), "t12i1501ad_"},
		{"ALPN 20 61", makeHello(0x0303, ciphers, []uint16{16}, "", []byte{0x20, 0x61}, nil, nil), "t12i150121_"},
		{"ALPN 30 ab", makeHello(0x0303, ciphers, []uint16{16}, "", []byte{0x30, 0xab}, nil, nil), "t12i15013b_"},
		{"ALPN 61 20", makeHello(0x0303, ciphers, []uint16{16}, "", []byte{0x61, 0x20}, nil, nil), "t12i150160_"},
		{"ALPN 30 31 ab cd", makeHello(0x0303, ciphers, []uint16{16}, "", []byte{0x30, 0x31, 0xab, 0xcd}, nil, nil), "t12i15013d_"},
		{"ALPN 30 ab cd 31", makeHello(0x0303, ciphers, []uint16{16}, "", []byte{0x30, 0xab, 0xcd, 0x31}, nil, nil), "t12i150101_"},
		{"ALPN of one letter", makeHello(0x0303, ciphers, []uint16{16}, "", []byte("x"), nil, nil), "t12i1501xx_"},
		{"empty ALPN", makeHello(0x0303, ciphers, []uint16{16}, "", nil, nil, nil), "t12i150100_"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, _ := inspect(t, tcpFlow, []chunk{{ToServer, record(test.hello)}})
			if !strings.HasPrefix(f.TLS.JA4, test.want) || len(f.TLS.JA4) != 36 {
				t.Errorf("got %s, want %s", f.TLS.JA4, test.want)
			}
		})
	}
	var p fingerprinter
	if got := shortHash(hexList(nil, slices.Sorted(slices.Values(slices.DeleteFunc(without, func(v uint16) bool { return v == 0 || v == 16 || grease(v) }))))); string(got[:]) == "6d807ffa2a79" {
		t.Errorf("the list without 000d hashes as the specification's, which keeps it: %s", got)
	}
	withAlgorithmsKind := makeHello(0x0303, ciphers, extensions, "a", []byte("h2"), nil, versions)
	var h clientHello
	if !h.parse(withAlgorithmsKind[4:]) {
		t.Fatal("hello not read")
	}
	if got := p.ja4(&h, 'q'); got != "q13d1516h2_8daaf6152771_6d807ffa2a79" {
		t.Errorf("no algorithms in their extension: %s", got)
	}
}

func FuzzTLS(f *testing.F) {
	chunks, _ := handshake(f, &tls.Config{ServerName: "www.example", NextProtos: []string{"h2"}}, &tls.Config{})
	f.Add(chunks[0].data, chunks[1].data, uint8(3))
	f.Add(record(makeHello(0x0303, []uint16{1}, []uint16{0, 16, 13, 43}, "a", []byte("b"), []uint16{3}, []uint16{0x0304})), []byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, client, server []byte, size uint8) {
		both := []chunk{{ToServer, client}, {ToClient, server}}
		want, _ := inspect(t, tcpFlow, both)
		got, _ := inspect(t, tcpFlow, cut(both, int(size)+1))
		if !sameFacts(&got, &want) {
			t.Errorf("in pieces of %d:\ngot  %+v\nwant %+v", int(size)+1, got, want)
		}
		if want.TLS.SNI == "" || want.Gap {
			return
		}
		// What has a name for us must have the same for crypto/tls, if it takes the hello.
		if name, err := serverName(client); err == nil && strings.TrimSuffix(strings.ToLower(name), ".") != want.TLS.SNI {
			t.Errorf("name %q, crypto/tls %q", want.TLS.SNI, name)
		}
	})
}

// serverName has crypto/tls read a hello.
func serverName(hello []byte) (name string, err error) {
	c, s := net.Pipe()
	go io.Copy(io.Discard, c)
	go func() {
		c.Write(hello)
		c.Close()
	}()
	seen := errors.New("seen")
	err = tls.Server(s, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return nil, seen
	}}).Handshake()
	s.Close()
	if errors.Is(err, seen) {
		err = nil
	}
	return name, err
}

func BenchmarkTLSHello(b *testing.B) {
	chunks, _ := handshake(b, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}}, &tls.Config{})
	hello := chunks[0].data
	b.SetBytes(int64(len(hello)))
	b.ReportAllocs()
	var i Inspection
	for b.Loop() {
		i.Start(tcpFlow)
		i.Feed(ToServer, hello)
		i.Close()
	}
	if i.Facts.TLS.SNI != "www.example.com" {
		b.Fatal(i.Facts)
	}
}
