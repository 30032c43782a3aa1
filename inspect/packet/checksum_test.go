package packet_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"inquest/inspect/packet"
)

func TestVerify(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := generated(t, r)
		var p packet.Packet
		if err := p.Decode(b); err != nil {
			t.Fatal(err)
		}
		if !p.Verify(packet.ChecksumUnverified) {
			t.Fatalf("%x: %v", b, p.Anomalies.Names())
		}
		if p.Proto == packet.ProtoGRE {
			continue
		}
		// One changed bit of the transport is always noticed; but a UDP checksum
		// that becomes 0 says that there is none.
		i := p.Transport + r.IntN(len(b)-p.Transport)
		b[i] ^= 1 << r.IntN(8)
		if err := p.Decode(b); err != nil {
			t.Fatal(err)
		}
		if p.Proto == packet.ProtoUDP && (b[p.Transport+6] == 0 && b[p.Transport+7] == 0 || p.Anomalies&packet.BadLen != 0) {
			continue
		}
		if p.Verify(packet.ChecksumUnverified) {
			t.Fatalf("bit changed in byte %d of %x not noticed", i, b)
		}
		if !p.Verify(packet.ChecksumPartial) || !p.Verify(packet.ChecksumVerified) {
			t.Fatalf("verified what the kernel vouches for: %x", b)
		}
		if p.Version == 4 {
			b[8]++
			if p.Verify(packet.ChecksumVerified) || p.Anomalies&packet.BadIPChecksum == 0 {
				t.Fatalf("changed TTL not noticed: %x", b)
			}
		}
	}
}

func TestFixChecksums(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		b := generated(t, r)
		want := bytes.Clone(b)
		var p packet.Packet
		if err := p.Decode(b); err != nil {
			t.Fatal(err)
		}
		field := map[uint8]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6, packet.ProtoICMP: 2, packet.ProtoICMPv6: 2, packet.ProtoSCTP: 8}
		if off, ok := field[p.Proto]; ok {
			b[p.Transport+off] ^= 0x55
		}
		if p.Version == 4 {
			b[10] ^= 0x55
		}
		p.FixChecksums()
		if !bytes.Equal(b, want) {
			t.Fatalf("\n got %x\nwant %x", b, want)
		}
	}
}

func TestChecksumRules(t *testing.T) {
	u := build(t, ip4(layers.IPProtocolUDP), udp(1, 2), gopacket.Payload("x"))
	var p packet.Packet

	none := bytes.Clone(u)
	none[26], none[27] = 0, 0
	p.Decode(none)
	if !p.Verify(packet.ChecksumUnverified) {
		t.Error("UDP without a checksum is wrong")
	}
	p.FixChecksums()
	if none[26]|none[27] != 0 {
		t.Error("a checksum was given to UDP that has none")
	}

	short := bytes.Clone(u)[:len(u)-1]
	p.Decode(short)
	if !p.Verify(packet.ChecksumUnverified) {
		t.Error("the checksum of a packet copied in part is wrong")
	}

	lite := build(t, ip4(136), gopacket.Payload([]byte{0, 1, 0, 2, 0, 8, 0, 0, 'x', 'y'}))
	p.Decode(lite)
	if p.Verify(packet.ChecksumUnverified) {
		t.Error("UDP-Lite without a checksum is right")
	}
	p.FixChecksums()
	lite[29] ^= 0xff // not covered
	if !p.Verify(packet.ChecksumUnverified) {
		t.Error("UDP-Lite: payload outside the coverage counts")
	}
	lite[20] ^= 0xff
	if p.Verify(packet.ChecksumUnverified) {
		t.Error("UDP-Lite: header does not count")
	}
}

func TestAppendReplaced(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		b := generated(t, r)
		var p packet.Packet
		if err := p.Decode(b); err != nil {
			t.Fatal(err)
		}
		payload := make([]byte, r.IntN(1000))
		for i := range payload {
			payload[i] = byte(i)
		}
		prefix := []byte("before")
		out, err := p.AppendReplaced(bytes.Clone(prefix), payload)
		if p.Proto == packet.ProtoGRE {
			if !errors.Is(err, packet.ErrReplace) || !bytes.Equal(out, prefix) {
				t.Fatalf("GRE: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var q packet.Packet
		if err := q.Decode(out[len(prefix):]); err != nil {
			t.Fatal(err)
		}
		if !q.Verify(packet.ChecksumUnverified) || q.Anomalies&^packet.BadFlags&^packet.BadAddress != 0 {
			t.Fatalf("%v", q.Anomalies.Names())
		}
		if !bytes.Equal(q.Payload, payload) || q.Tuple() != p.Tuple() {
			t.Fatalf("%x with payload %x became %x", b, payload, out)
		}
	}
	var p packet.Packet
	p.Decode(build(t, ip4(layers.IPProtocolUDP), udp(1, 2)))
	if _, err := p.AppendReplaced(nil, make([]byte, 65535-27)); !errors.Is(err, packet.ErrReplace) {
		t.Errorf("65536 bytes: %v", err)
	}
	if out, err := p.AppendReplaced(nil, make([]byte, 65535-28)); err != nil || len(out) != 65535 {
		t.Errorf("65535 bytes: %v", err)
	}
}
