package nfqueue

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func attr(typ uint16, v ...byte) []byte { return attrBytes(nil, typ, v) }

func nest(typ uint16, attrs ...[]byte) []byte {
	return attrBytes(nil, typ|nested, slices.Concat(attrs...))
}

// body is a packet's message, without its netlink header, of AF_INET and queue 513.
func body(attrs ...[]byte) []byte {
	return slices.Concat(append([][]byte{{2, 0, 2, 1}}, attrs...)...)
}

var (
	header  = attr(attrPacketHdr, 0, 0, 1, 0, 0x86, 0xdd, 3)
	tuple   = nest(ctTupleIP, attr(ctIPv4Src, 192, 0, 2, 1), attr(ctIPv4Dst, 192, 0, 2, 2))
	tuple6  = nest(ctTupleIP, attr(ctIPv6Src, netip.MustParseAddr("2001:db8::1").AsSlice()...), attr(ctIPv6Dst, netip.MustParseAddr("2001:db8::2").AsSlice()...))
	tcpPart = nest(ctTupleProto, attr(ctProtoNum, 6), attr(ctSrcPort, 0xc0, 0), attr(ctDstPort, 0, 80))
	whole   = body(header,
		attr(attrIn, 0, 0, 0, 1), attr(attrOut, 0, 0, 0, 2), attr(attrPhysIn, 0, 0, 0, 3), attr(attrPhysOut, 0, 0, 0, 4),
		attr(attrMark, 0, 0, 0, 5), attr(attrPriority, 0, 0, 0, 6),
		attr(attrHWAddr, 0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0),
		nest(attrVLAN, attr(attrVLANTCI, 0, 7), attr(attrVLANProto, 0x81, 0)),
		attr(attrL2Header, 1, 2, 3),
		attr(attrTimestamp, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 7),
		attr(attrUID, 0, 0, 3, 0xe8), attr(attrGID, 0, 0, 3, 0xe9),
		attr(attrSecCtx, []byte("system_u")...),
		nest(attrCT, nest(ctTupleOrig, tuple, tcpPart), nest(ctTupleReply, tuple6, tcpPart),
			attr(ctStatus, 0, 0, 1, 0x8a), attr(ctTimeout, 0, 0, 0, 30), attr(ctMark, 0, 0, 0, 9), attr(ctID, 1, 2, 3, 4), attr(ctZone, 0, 11)),
		attr(attrCTInfo, 0, 0, 0, 2),
		attr(attrCapLen, 0, 0, 5, 0xdc), attr(attrSkbInfo, 0, 0, 0, 3),
		attr(attrPayload, 0x60, 1, 2, 3, 4))
)

func TestParse(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		want Packet
	}{
		{"everything", slices.Clone(whole), Packet{
			ID: 256, Queue: 513, Protocol: 0x86dd, Family: 2, Hook: LocalOut, Info: ChecksumNotReady | Segments,
			Mark: 5, Priority: 6, In: 1, Out: 2, PhysIn: 3, PhysOut: 4,
			HWAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}, L2Header: []byte{1, 2, 3}, VLAN: VLAN{0x8100, 7},
			Timestamp: time.Unix(100, 7000), Payload: []byte{0x60, 1, 2, 3, 4}, Len: 1500,
			UID: 1000, GID: 1001, HasOwner: true, SecCtx: []byte("system_u"),
		}},
		{"least", body(header), Packet{ID: 256, Queue: 513, Protocol: 0x86dd, Family: 2, Hook: LocalOut}},
		{"length after payload", body(header, attr(attrPayload, 1, 2), attr(attrCapLen, 0, 0, 0, 9)),
			Packet{ID: 256, Queue: 513, Protocol: 0x86dd, Family: 2, Hook: LocalOut, Payload: []byte{1, 2}, Len: 9}},
		{"not padded", body(header, attr(attrPayload, 1, 2)[:6]),
			Packet{ID: 256, Queue: 513, Protocol: 0x86dd, Family: 2, Hook: LocalOut, Payload: []byte{1, 2}, Len: 2}},
		{"unknown attribute", body(attr(99, 1, 2, 3), header), Packet{ID: 256, Queue: 513, Protocol: 0x86dd, Family: 2, Hook: LocalOut}},
		{"address of an odd length", body(header, attr(attrHWAddr, 0, 20, 0, 0, 1, 2)),
			Packet{ID: 256, Queue: 513, Protocol: 0x86dd, Family: 2, Hook: LocalOut, HWAddr: net.HardwareAddr{1, 2}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			if _, err := p.parse(tt.in); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, p, cmpopts.IgnoreUnexported(Packet{})); diff != "" {
				t.Error(diff)
			}
			c := p.Clone()
			clear(tt.in)
			if diff := cmp.Diff(&tt.want, c, cmpopts.IgnoreUnexported(Packet{})); diff != "" {
				t.Error("the clone changed with the message:\n", diff)
			}
		})
	}
}

func TestParseConntrack(t *testing.T) {
	var p Packet
	ports := Tuple{Proto: 6, SrcPort: 0xc000, DstPort: 80}
	v4, v6 := ports, ports
	v4.Src, v4.Dst = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	v6.Src, v6.Dst = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	ct := nest(attrCT, nest(ctTupleOrig, tuple, tcpPart), nest(ctTupleReply, tuple6, tcpPart),
		attr(ctStatus, 0, 0, 1, 0x8a), attr(ctTimeout, 0, 0, 0, 30), attr(ctMark, 0, 0, 0, 9), attr(ctID, 1, 2, 3, 4), attr(ctZone, 0, 11))
	if _, err := p.parse(body(header, ct, attr(attrCTInfo, 0, 0, 0, 3))); err != nil {
		t.Fatal(err)
	}
	want := Conntrack{ID: 0x01020304, Mark: 9, Status: 0x18a, Timeout: 30, Zone: 11, State: CTEstablished + CTReply, Original: v4, Reply: v6}
	got, ok := p.Conntrack()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); !ok || diff != "" {
		t.Error(ok, diff)
	}

	icmp := nest(ctTupleOrig, nest(ctTupleProto, attr(ctProtoNum, 1), attr(ctICMPID, 0, 5), attr(ctICMPType, 8), attr(ctICMPCode, 0)))
	p = Packet{}
	if _, err := p.parse(body(header, nest(attrCT, icmp))); err != nil {
		t.Fatal(err)
	}
	if ct, ok := p.Conntrack(); !ok || ct.Original != (Tuple{Proto: 1, ICMPID: 5, ICMPType: 8}) {
		t.Error(ct, ok)
	}

	for name, bad := range map[string][]byte{
		"none":           nil,
		"short mark":     nest(attrCT, attr(ctMark, 1)),
		"short address":  nest(attrCT, nest(ctTupleOrig, nest(ctTupleIP, attr(ctIPv4Src, 1, 2)))),
		"short port":     nest(attrCT, nest(ctTupleReply, nest(ctTupleProto, attr(ctSrcPort, 1)))),
		"cut attribute":  attr(attrCT, 40, 0, 1, 0),
		"length of zero": attr(attrCT, 0, 0, 1, 0),
	} {
		p = Packet{}
		if _, err := p.parse(body(header, bad)); err != nil {
			t.Fatal(err)
		}
		if ct, ok := p.Conntrack(); ok {
			t.Errorf("%s: %+v", name, ct)
		}
	}
}

func TestParseMalformed(t *testing.T) {
	for name, tt := range map[string]struct {
		in    []byte
		hasID bool
	}{
		"nothing":         {nil, false},
		"no attributes":   {body(), false},
		"no id":           {body(attr(attrMark, 1, 2, 3, 4)), false},
		"short id":        {body(attr(attrPacketHdr, 1, 2, 3, 4)), false},
		"short mark":      {body(header, attr(attrMark, 1)), true},
		"short timestamp": {body(header, attr(attrTimestamp, 1)), true},
		"short address":   {body(header, attr(attrHWAddr, 1)), true},
		"short VLAN":      {body(header, nest(attrVLAN, attr(attrVLANTCI, 1))), true},
		"attribute of 0":  {body(header, []byte{0, 0, 3, 0}), true},
		"attribute of 3":  {body(header, []byte{3, 0, 3, 0}), true},
		"longer than all": {body(header, []byte{200, 0, 10, 0, 1}), true},
		"cut header":      {body(header, []byte{8, 0}), true},
	} {
		var p Packet
		hasID, err := p.parse(tt.in)
		if err == nil || hasID != tt.hasID {
			t.Errorf("%s: id %v, error %v", name, hasID, err)
		}
		if hasID && p.ID != 256 {
			t.Errorf("%s: id %d", name, p.ID)
		}
	}
}

// FuzzParse gives hostile bytes to all that reads messages: none may panic, and
// what is shown of a packet lies within its message.
func FuzzParse(f *testing.F) {
	f.Add(slices.Clone(whole))
	f.Add(body(header, attr(attrPayload, 1, 2, 3)))
	e, start := message(nil, typeError, 0, 0, 0)
	f.Add(end(append(e, appendNoop(nil)...), start))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		if _, err := p.parse(b); err == nil {
			p.Conntrack()
			p.Clone()
			if len(p.Payload) > len(b) || len(p.HWAddr) > 0xffff {
				t.Errorf("payload of %d bytes in a message of %d", len(p.Payload), len(b))
			}
		}
		parseKernelStats(b)

		k := newKernel()
		k.inbox = [][]byte{b}
		k.arrive(1)
		q := start1(t, k)
		n, _ := q.receiveNow()
		q.handle(n, func(p *Packet) Verdict { return Accept() })
		if k.seq == 1 && len(k.fates[1]) > 1 {
			t.Errorf("one packet, %q", k.fates[1])
		}
	})
}

func start1(t testing.TB, k *kernel) *queue { return start(t, Config{}, k).queues[0] }
