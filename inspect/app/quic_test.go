package app

import (
	"context"
	"crypto/aes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/quic"
)

var quicFlow = Flow{Transport: UDP, ClientPort: 50000, ServerPort: 443}

func vector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return unhex(t, string(b))
}

// TestQUICVectors reads the sample packets of the specifications.
func TestQUICVectors(t *testing.T) {
	for _, test := range []struct {
		file    string
		version uint32
	}{
		{"rfc9001-client-initial.hex", 1},          // RFC 9001 appendix A.2
		{"rfc9369-client-initial.hex", 0x6b3343cf}, // RFC 9369 appendix A.2
	} {
		t.Run(test.file, func(t *testing.T) {
			packet := vector(t, test.file)
			if len(packet) != 1200 {
				t.Fatalf("%d bytes", len(packet))
			}
			before := slices.Clone(packet)
			f, _ := inspect(t, quicFlow, []chunk{{ToServer, packet}})
			if f.QUIC.SNI != "example.com" || f.QUIC.Version != test.version || !f.Done || f.Gap ||
				fmt.Sprint(f.QUIC.ALPN) != "[alpn]" || !strings.HasPrefix(f.QUIC.JA4, "q13d0211an_") {
				t.Errorf("got %+v", f)
			}
			if !slices.Equal(before, packet) {
				t.Error("the packet was changed")
			}
			packet[len(packet)-1]++
			f, _ = inspect(t, quicFlow, []chunk{{ToServer, packet}})
			if f.QUIC.SNI != "" || f.Done {
				t.Errorf("a damaged packet was read: %+v", f)
			}
		})
	}
}

// tapPacketConn notes what goes through a socket.
type tapPacketConn struct {
	net.PacketConn
	dir Dir
	tap *tap
}

func (c tapPacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.tap.mu.Lock()
	c.tap.chunks = append(c.tap.chunks, chunk{c.dir, slices.Clone(b)})
	c.tap.mu.Unlock()
	return c.PacketConn.WriteTo(b, to)
}

// TestQUICHandshake has x/net's client and server talk.
func TestQUICHandshake(t *testing.T) {
	for _, retry := range []bool{false, true} {
		t.Run(fmt.Sprintf("retry %v", retry), func(t *testing.T) {
			taps := new(tap)
			socket := func(dir Dir) tapPacketConn {
				c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
				if err != nil {
					t.Fatal(err)
				}
				return tapPacketConn{c, dir, taps}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			serverSocket := socket(ToClient)
			server, err := quic.NewEndpoint(serverSocket, &quic.Config{
				TLSConfig:                &tls.Config{Certificates: []tls.Certificate{testCertificate()}, NextProtos: []string{"h3", "x"}, MinVersion: tls.VersionTLS13},
				RequireAddressValidation: retry,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close(canceled())
			client, err := quic.NewEndpoint(socket(ToServer), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close(canceled())
			var accepted sync.WaitGroup
			accepted.Go(func() { server.Accept(ctx) })
			_, err = client.Dial(ctx, "udp", serverSocket.LocalAddr().String(), &quic.Config{
				TLSConfig: &tls.Config{ServerName: "WWW.example", NextProtos: []string{"h3", "x"}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
			})
			if err != nil {
				t.Fatal(err)
			}
			accepted.Wait()
			taps.mu.Lock()
			chunks := slices.Clone(taps.chunks)
			taps.mu.Unlock()
			if retry {
				// What matters behind a Retry is the second hello: leave the first out.
				chunks = chunks[1:]
				for chunks[0].dir == ToClient {
					chunks = chunks[1:]
				}
			}
			f, _ := inspect(t, quicFlow, chunks)
			if f.QUIC.SNI != "www.example" || fmt.Sprint(f.QUIC.ALPN) != "[h3 x]" || f.QUIC.Version != 1 || !f.Done || f.Gap {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// protect makes an initial packet of frames, padded to size, with a token and a packet number.
func protect(t testing.TB, version uint32, dcid, token, frames []byte, number uint32, size int) []byte {
	t.Helper()
	v := quicVersionOf(version)
	keys, err := newQUICKeys(v, dcid)
	if err != nil {
		t.Fatal(err)
	}
	first := byte(0xc3) | v.initial<<4
	packet := binary.BigEndian.AppendUint32([]byte{first}, version)
	packet = append(append(packet, byte(len(dcid))), dcid...)
	packet = append(packet, 4, 1, 2, 3, 4)
	packet = append(append(packet, 0x40, byte(len(token))), token...)
	const number4, tag = 4, 16
	if pad := size - len(packet) - 2 - number4 - tag - len(frames); pad > 0 {
		frames = append(slices.Clone(frames), make([]byte, pad)...)
	}
	length := number4 + len(frames) + tag
	packet = append(packet, 0x40|byte(length>>8), byte(length))
	at := len(packet)
	packet = binary.BigEndian.AppendUint32(packet, number)
	nonce := keys.iv
	binary.BigEndian.PutUint32(nonce[8:], binary.BigEndian.Uint32(nonce[8:])^number)
	packet = keys.aead.Seal(packet, nonce[:], frames, packet)
	var mask [aes.BlockSize]byte
	keys.header.Encrypt(mask[:], packet[at+4:][:aes.BlockSize])
	packet[0] ^= mask[0] & 0x0f
	for i := range number4 {
		packet[at+i] ^= mask[1+i]
	}
	return packet
}

func cryptoFrame(offset int, data []byte) []byte {
	b := []byte{frameCrypto, 0x80, byte(offset >> 16), byte(offset >> 8), byte(offset), 0x40 | byte(len(data)>>8), byte(len(data))}
	return append(b, data...)
}

// quicHello is one of about 2 KiB, as those with post-quantum key shares are.
func quicHello() []byte {
	extensions := []uint16{0, 16, 13, 43, 0x39, 0x33}
	for kind := range uint16(400) {
		extensions = append(extensions, 0x7000+kind)
	}
	return makeHello(0x0303, []uint16{0x1301, 0x1302, 0x1303}, extensions, "spread.example", []byte("h3"), []uint16{0x0403}, []uint16{0x0304})
}

// TestQUICSpread has the hello come as Chrome sends it: in pieces out of order, with
// padding and pings between, over several datagrams and coalesced packets.
func TestQUICSpread(t *testing.T) {
	hello := quicHello()
	dcid := []byte("\x01\x02\x03\x04\x05\x06\x07\x08")
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		version := quicVersions[round%len(quicVersions)].number
		type piece struct{ from, to int }
		var pieces []piece
		for from := 0; from < len(hello); {
			to := min(len(hello), from+1+random.IntN(300))
			pieces = append(pieces, piece{max(0, from-random.IntN(20)), to})
			from = to
		}
		random.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		var chunks []chunk
		number := uint32(0)
		for len(pieces) > 0 {
			var datagram []byte
			for range 1 + random.IntN(2) {
				var frames []byte
				for len(pieces) > 0 && len(frames) < 500 {
					frames = append(frames, cryptoFrame(pieces[0].from, hello[pieces[0].from:pieces[0].to])...)
					pieces = pieces[1:]
					if random.IntN(2) == 0 {
						frames = append(frames, framePing, framePadding, frameACK, 0, 0, 0, 0, frameACKECN, 9, 0, 1, 0, 1, 1, 0, 0, 0)
					}
				}
				size := 0
				if len(datagram) > 0 {
					size = 1250 - len(datagram)
				}
				datagram = append(datagram, protect(t, version, dcid, []byte("token"), frames, number, size)...)
				number++
			}
			if len(datagram) < minInitial {
				datagram = append(datagram, make([]byte, minInitial-len(datagram))...)
			}
			chunks = append(chunks, chunk{ToServer, datagram}, chunk{ToClient, []byte("an answer")})
		}
		f, changes := inspect(t, quicFlow, chunks)
		if f.QUIC.SNI != "spread.example" || f.QUIC.Version != version || f.QUIC.JA4[:10] != "q13d0399h3" || !f.Done || f.Gap {
			t.Fatalf("round %d: got %+v", round, f)
		}
		if first := changes[0]; len(chunks) > 2 && (first.Proto != ProtoQUIC || first.Known.Has(FieldQUICSNI) || !first.Final.Has(FieldDNSNames)) {
			t.Fatalf("round %d: after the first datagram %+v", round, first)
		}
	}
}

// TestQUICNewVersion begins again behind a version negotiation, with other keys.
func TestQUICNewVersion(t *testing.T) {
	hello := quicHello()
	first := protect(t, 1, []byte("12345678"), nil, cryptoFrame(0, []byte("\x01\x00\x10\x00 another")), 0, minInitial)
	reserved := slices.Clone(first)
	binary.BigEndian.PutUint32(reserved[1:], 0x1a2a3a4a)
	chunks := []chunk{{ToServer, reserved}, {ToServer, first}}
	for at := 0; at < len(hello); at += 1000 {
		piece := hello[at:min(len(hello), at+1000)]
		chunks = append(chunks, chunk{ToServer, protect(t, 0x6b3343cf, []byte("abcdefgh"), nil, cryptoFrame(at, piece), uint32(at), minInitial)})
	}
	f, _ := inspect(t, quicFlow, chunks)
	if f.QUIC.SNI != "spread.example" || f.QUIC.Version != 0x6b3343cf || f.Gap {
		t.Errorf("got %+v", f)
	}
}

func TestQUICEnds(t *testing.T) {
	dcid := []byte("12345678")
	hello := quicHello()
	part := protect(t, 1, dcid, nil, cryptoFrame(0, hello[:500]), 0, minInitial)
	for _, test := range []struct {
		name   string
		chunks []chunk
		proto  Proto
		done   bool
		gap    bool
	}{
		{"part", []chunk{{ToServer, part}}, ProtoQUIC, false, false},
		{"too short to be answered", []chunk{{ToServer, part[:1199]}}, ProtoUnknown, false, false},
		{"part again and again", slices.Repeat([]chunk{{ToServer, part}}, maxQUICDatagrams), ProtoQUIC, true, true},
		{"too far", []chunk{{ToServer, protect(t, 1, dcid, nil, cryptoFrame(maxHello, []byte{1}), 0, minInitial)}}, ProtoQUIC, true, true},
		{"no hello", []chunk{{ToServer, protect(t, 1, dcid, nil, cryptoFrame(0, []byte{2, 0, 0, 1, 0}), 0, minInitial)}}, ProtoQUIC, true, true},
		{"server first", []chunk{{ToClient, part}}, ProtoUnknown, false, false},
		{"of no known version", []chunk{{ToServer, append([]byte{0xc3, 'Q', '0', '4', '6'}, part[5:]...)}}, ProtoUnknown, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, _ := inspect(t, quicFlow, test.chunks)
			if f.Proto != test.proto || f.Done != test.done || f.Gap != test.gap {
				t.Errorf("got proto %v, done %v, gap %v", f.Proto, f.Done, f.Gap)
			}
		})
	}
}

// TestCryptoStream compares with a plain array: first come, first kept.
func TestCryptoStream(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var s cryptoStream
		var want [300]byte
		var there [300]bool
		for range random.IntN(40) {
			from := random.IntN(280)
			piece := make([]byte, random.IntN(20))
			for i := range piece {
				piece[i] = byte(1 + random.IntN(255))
				if !there[from+i] {
					there[from+i], want[from+i] = true, piece[i]
				}
			}
			if !s.add(from, piece) {
				t.Fatal("refused")
			}
		}
		for _, span := range s.spans[:s.n] {
			if !slices.Equal(s.data.b[span.from:span.to], want[span.from:span.to]) {
				t.Fatalf("%v: got %x, want %x", span, s.data.b[span.from:span.to], want[span.from:span.to])
			}
			for i := span.from; i < span.to; i++ {
				if !there[i] {
					t.Fatalf("%v: %d never came", span, i)
				}
				there[i] = false
			}
		}
		if i := slices.Index(there[:], true); i >= 0 {
			t.Fatalf("%v: %d is missing", s.spans[:s.n], i)
		}
	}
	var s cryptoStream
	for i := range maxSpans {
		if !s.add(2*i+1, []byte{1}) {
			t.Fatalf("piece %d refused", i)
		}
	}
	if s.add(1000, []byte{1}) {
		t.Error("more pieces than are held were taken")
	}
}

func FuzzQUIC(f *testing.F) {
	f.Add(vector(f, "rfc9001-client-initial.hex"), []byte{})
	f.Add(vector(f, "rfc9369-client-initial.hex"), []byte{})
	f.Add([]byte{}, cryptoFrame(0, quicHello()[:1000]))
	f.Fuzz(func(t *testing.T, datagram, frames []byte) {
		inspect(t, quicFlow, []chunk{{ToServer, datagram}, {ToClient, datagram}, {ToServer, datagram}})
		if len(frames) > 1100 {
			return
		}
		packet := protect(t, 1, []byte("12345678"), nil, frames, 7, minInitial)
		if facts, _ := inspect(t, quicFlow, []chunk{{ToServer, packet}, {ToServer, packet}}); facts.Proto != ProtoQUIC {
			t.Errorf("got %+v", facts)
		}
	})
}

func BenchmarkQUICInitial(b *testing.B) {
	packet := vector(b, "rfc9001-client-initial.hex")
	b.SetBytes(int64(len(packet)))
	b.ReportAllocs()
	var i Inspection
	for b.Loop() {
		i.Start(quicFlow)
		i.Feed(ToServer, packet)
		i.Close()
	}
	if i.Facts.QUIC.SNI != "example.com" {
		b.Fatal(i.Facts)
	}
}
