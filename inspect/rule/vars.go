package rule

import (
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"

	"inquest/inspect/app"
	"inquest/inspect/packet"
)

// Variable is one name that conditions can use.
type Variable struct {
	Name string
	Type string // "int", "string", "bool", "bytes", "duration", "ip", "list(string)"
	Doc  string

	// Fact tells that it is unknown until the flow has shown it. PerPacket tells that
	// it may differ between packets of one flow (or between messages, for facts), so
	// that rules which need it keep flows queued.
	Fact, PerPacket bool

	typ   *cel.Type
	from  sources
	proto uint8 // the variable is absent in other transports; 0: in none
	also  uint8 // but not in this one; 0: there is none
	dim   dimension

	// the one of the type is set
	cond  condFn
	num   intFn
	text  textFn
	bytes bytesFn
	addr  addrFn
	list  listFn
}

// Variables returns every variable, in the order of the documentation.
func Variables() []Variable { return slices.Clone(variables().all) }

type variableTable struct {
	all    []Variable
	byName map[string]*Variable
	names  []string
	groups []string // "ip", "tcp" …
}

// variables is built when first used: by then every analyzer has its fields in place.
var variables = sync.OnceValue(func() *variableTable {
	all := slices.Concat(packetVariables(), flowVariables(), factVariables(), metaVariables())
	t := &variableTable{all: all, byName: make(map[string]*Variable, len(all))}
	for i := range all {
		v := &all[i]
		v.complete()
		t.byName[v.Name] = v
		t.names = append(t.names, v.Name)
		group, _, _ := strings.Cut(v.Name, ".")
		if !slices.Contains(t.groups, group) {
			t.groups = append(t.groups, group)
		}
	}
	return t
})

// elsewhere tells that the flow's transport has no such variable: that is so for all of
// its packets.
func (v *Variable) elsewhere(m *machine) bool {
	return v.proto != 0 && m.tuple.Proto != v.proto && m.tuple.Proto != v.also
}

// complete derives what need not be said twice, and hides values whose source is
// hidden from the pass.
func (v *Variable) complete() {
	v.Fact = v.from&fromFacts != 0
	v.PerPacket = v.PerPacket || v.from&fromPacket != 0
	from := v.from & (fromFacts | fromPacket | fromDevices)
	switch {
	case v.cond != nil:
		v.typ, v.Type = cel.BoolType, "bool"
		if read := v.cond; from != 0 {
			v.cond = func(m *machine) tri {
				if m.hide&from != 0 {
					return v.hidden(m)
				}
				return read(m)
			}
		}
	case v.num != nil:
		if v.typ == nil {
			v.typ, v.Type = cel.IntType, "int"
		} else {
			v.Type = "duration"
		}
		v.num = hidden(v, v.num, from)
	case v.text != nil:
		v.typ, v.Type, v.text = cel.StringType, "string", hidden(v, v.text, from)
	case v.bytes != nil:
		v.typ, v.Type, v.bytes = cel.BytesType, "bytes", hidden(v, v.bytes, from)
	case v.addr != nil:
		v.typ, v.Type, v.addr = addressType, "ip", hidden(v, v.addr, from)
	case v.list != nil:
		v.typ, v.Type, v.list = cel.ListType(cel.StringType), "list(string)", hidden(v, v.list, from)
	}
}

// hidden is what a variable is while its source is hidden.
func (v *Variable) hidden(m *machine) tri {
	if v.elsewhere(m) {
		return absent
	}
	return unknown
}

func hidden[T any](of *Variable, read valueFn[T], from sources) valueFn[T] {
	if from == 0 {
		return read
	}
	return func(m *machine) (v T, is tri) {
		if m.hide&from != 0 {
			return v, of.hidden(m)
		}
		return read(m)
	}
}

// The kinds of variables, by how they are read.

func always(name, doc string, read func(*machine) int64) Variable {
	return Variable{Name: name, Doc: doc, num: func(m *machine) (int64, tri) { return read(m), yes }}
}

func perPacket(v Variable) Variable {
	v.from |= fromPacket
	return v
}

// address is one end of the tuple.
func address(name, doc string, dim dimension, read func(*machine) netip.Addr) Variable {
	return Variable{Name: name, Doc: doc, from: fromTuple, dim: dim, addr: func(m *machine) (netip.Addr, tri) {
		if a := read(m); a.IsValid() {
			return a, yes
		}
		return netip.Addr{}, absent
	}}
}

// port is a port of the tuple, absent in transports other than proto; proto 0 is any
// that has ports.
func port(name, doc string, proto uint8, dim dimension) Variable {
	v := Variable{Name: name, Doc: doc, from: fromTuple, proto: proto, dim: dim}
	v.num = func(m *machine) (int64, tri) {
		if !m.ports || proto != 0 && m.tuple.Proto != proto {
			return 0, absent
		}
		if dim == dimSrcPort {
			return int64(m.tuple.SrcPort), yes
		}
		return int64(m.tuple.DstPort), yes
	}
	return v
}

// header is a number in a transport header, absent in packets without that header.
func header(name, doc string, proto uint8, read func(*packet.Packet) int64) Variable {
	return Variable{Name: name, Doc: doc, from: fromPacket, proto: proto, num: func(m *machine) (int64, tri) {
		if m.tuple.Proto != proto || m.packet.Proto != proto || !m.packet.HasTransport {
			return 0, absent
		}
		return read(m.packet), yes
	}}
}

// tcpFlag is one flag of a TCP header.
func tcpFlag(name, doc string, flag packet.Flags) Variable {
	return Variable{Name: name, Doc: doc, from: fromPacket, proto: packet.ProtoTCP, cond: func(m *machine) tri {
		if m.tuple.Proto != packet.ProtoTCP || m.packet.Proto != packet.ProtoTCP || !m.packet.HasTransport {
			return absent
		}
		return truth(m.packet.TCP.Flags&flag != 0)
	}}
}

// icmp is a number in an ICMP or ICMPv6 header.
func icmp(name, doc string, read func(*packet.ICMP) int64) Variable {
	v := Variable{Name: name, Doc: doc, from: fromPacket, proto: packet.ProtoICMP, also: packet.ProtoICMPv6}
	v.num = func(m *machine) (int64, tri) {
		p := m.packet
		if v.elsewhere(m) || p.Proto != packet.ProtoICMP && p.Proto != packet.ProtoICMPv6 || !p.HasTransport {
			return 0, absent
		}
		return read(&p.ICMP), yes
	}
	return v
}

func packetVariables() []Variable {
	srcPort, dstPort := dimSrcPort, dimDstPort
	return []Variable{
		address("ip.src", "source address", dimSrc, func(m *machine) netip.Addr { return m.tuple.Src }),
		address("ip.dst", "destination address", dimDst, func(m *machine) netip.Addr { return m.tuple.Dst }),
		{Name: "ip.proto", Doc: `transport protocol after all extension headers: a number, or a name: "tcp", "udp", "icmp", "icmpv6", "sctp", "gre", "esp" …`,
			from: fromTuple, dim: dimProto, num: func(m *machine) (int64, tri) { return int64(m.tuple.Proto), yes }},
		always("ip.version", "4 or 6", func(m *machine) int64 { return int64(m.packet.Version) }),
		perPacket(always("ip.ttl", "time to live, hop limit", func(m *machine) int64 { return int64(m.packet.TTL) })),
		perPacket(always("ip.tos", "type of service, traffic class: DSCP and ECN", func(m *machine) int64 { return int64(m.packet.TOS) })),
		perPacket(always("ip.dscp", "the upper six bits of ip.tos", func(m *machine) int64 { return int64(m.packet.TOS >> 2) })),
		perPacket(always("ip.len", "length by the IP header, in bytes", func(m *machine) int64 { return int64(m.packet.Len) })),
		perPacket(Variable{Name: "ip.fragment", Doc: "the packet is a part of a datagram",
			cond: func(m *machine) tri { return truth(m.packet.Fragment) }}),
		perPacket(Variable{Name: "ip.options", Doc: `IPv4 options and IPv6 extension headers: "source-route", "hop-by-hop" …`,
			list: func(m *machine) ([]string, tri) {
				m.options = appendNames(m.options[:0], uint32(m.packet.Options), optionNames)
				return m.options, yes
			}}),
		perPacket(Variable{Name: "ip.anomalies", Doc: `what is wrong with the packet: "truncated", "bad-length", "bad-flags", "bad-fragment" …`,
			list: func(m *machine) ([]string, tri) {
				m.anomalies = appendNames(m.anomalies[:0], uint32(m.packet.Anomalies), anomalyNames)
				return m.anomalies, yes
			}}),

		port("th.sport", "source port of TCP, UDP, UDP-Lite or SCTP", 0, srcPort),
		port("th.dport", "destination port of TCP, UDP, UDP-Lite or SCTP", 0, dstPort),
		port("tcp.sport", "source port", packet.ProtoTCP, srcPort),
		port("tcp.dport", "destination port", packet.ProtoTCP, dstPort),
		header("tcp.flags", "flags as a number: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128, AE 256", packet.ProtoTCP,
			func(p *packet.Packet) int64 { return int64(p.TCP.Flags) }),
		tcpFlag("tcp.syn", "flag SYN: opens a connection, alone or as answer", packet.SYN),
		tcpFlag("tcp.ack", "flag ACK", packet.ACK),
		tcpFlag("tcp.fin", "flag FIN", packet.FIN),
		tcpFlag("tcp.rst", "flag RST", packet.RST),
		tcpFlag("tcp.psh", "flag PSH", packet.PSH),
		tcpFlag("tcp.urg", "flag URG", packet.URG),
		header("tcp.seq", "sequence number", packet.ProtoTCP, func(p *packet.Packet) int64 { return int64(p.TCP.Seq) }),
		header("tcp.window", "window as sent, not scaled", packet.ProtoTCP, func(p *packet.Packet) int64 { return int64(p.TCP.Window) }),
		header("tcp.mss", "maximum segment size of a SYN, 0 when not given", packet.ProtoTCP, func(p *packet.Packet) int64 { return int64(p.TCP.MSS) }),
		port("udp.sport", "source port", packet.ProtoUDP, srcPort),
		port("udp.dport", "destination port", packet.ProtoUDP, dstPort),
		port("sctp.sport", "source port", packet.ProtoSCTP, srcPort),
		port("sctp.dport", "destination port", packet.ProtoSCTP, dstPort),
		header("sctp.chunk", "type of the first chunk", packet.ProtoSCTP, func(p *packet.Packet) int64 { return int64(p.SCTP.Chunk) }),
		icmp("icmp.type", "type of an ICMP or ICMPv6 message", func(c *packet.ICMP) int64 { return int64(c.Type) }),
		icmp("icmp.code", "code of an ICMP or ICMPv6 message", func(c *packet.ICMP) int64 { return int64(c.Code) }),
		perPacket(Variable{Name: "payload", Doc: "what the transport carries in this packet",
			bytes: func(m *machine) ([]byte, tri) { return m.packet.Payload, yes }}),
	}
}

func flowVariables() []Variable {
	first := func(name, doc string, dim dimension, read func(*FlowInfo) netip.Addr, own func(*packet.Packet) netip.Addr) Variable {
		v := address(name, doc, dim, func(m *machine) netip.Addr {
			if f := &m.env.Flow; f.Src.IsValid() {
				return read(f)
			}
			return own(m.packet)
		})
		v.from = 0
		return v
	}
	firstPort := func(name, doc string, read func(*FlowInfo) uint16, own func(*packet.Packet) uint16) Variable {
		return Variable{Name: name, Doc: doc, num: func(m *machine) (int64, tri) {
			f, p := &m.env.Flow, m.packet
			if !f.Src.IsValid() {
				return int64(own(p)), presentIf(p.HasTransport && hasPorts(p.Proto))
			}
			return int64(read(f)), presentIf(hasPorts(f.Proto) && (p.HasTransport || f.SrcPort|f.DstPort != 0))
		}}
	}
	return []Variable{
		first("flow.src", "source address of the flow's first packet: the client", dimNone,
			func(f *FlowInfo) netip.Addr { return f.Src }, func(p *packet.Packet) netip.Addr { return p.Src }),
		first("flow.dst", "destination address of the flow's first packet: the server", dimNone,
			func(f *FlowInfo) netip.Addr { return f.Dst }, func(p *packet.Packet) netip.Addr { return p.Dst }),
		firstPort("flow.sport", "source port of the flow's first packet",
			func(f *FlowInfo) uint16 { return f.SrcPort }, func(p *packet.Packet) uint16 { return p.SrcPort }),
		firstPort("flow.dport", "destination port of the flow's first packet",
			func(f *FlowInfo) uint16 { return f.DstPort }, func(p *packet.Packet) uint16 { return p.DstPort }),
		perPacket(Variable{Name: "flow.reply", Doc: "the packet answers: it goes against the first packet's direction",
			cond: func(m *machine) tri { return truth(m.env.Flow.Reply) }}),
		perPacket(Variable{Name: "flow.state", Doc: `"new", "established", "closing" or "closed"`,
			text: func(m *machine) (string, tri) { return m.env.Flow.State, yes }}),
		perPacket(always("flow.packets", "packets so far, this one counted, both directions", func(m *machine) int64 { return int64(m.env.Flow.Packets) })),
		perPacket(always("flow.bytes", "bytes so far, this packet counted, both directions", func(m *machine) int64 { return int64(m.env.Flow.Bytes) })),
		{Name: "flow.age", Doc: `time since the first packet: flow.age > "30s"`, from: fromPacket, typ: cel.DurationType,
			num: func(m *machine) (int64, tri) { return int64(m.env.Flow.Age), yes }},
	}
}

func presentIf(ok bool) tri {
	if ok {
		return yes
	}
	return absent
}

// factVariables are the fields of the analyzers.
func factVariables() []Variable {
	var vars []Variable
	for i := range app.Fields {
		f := &app.Fields[i]
		if f.Name == "" {
			continue
		}
		v := Variable{Name: f.Name, Doc: f.Doc, from: fromField(f.ID), PerPacket: f.PerMessage, dim: dimFact + dimension(f.ID)}
		switch {
		case f.String != nil:
			v.text = func(m *machine) (string, tri) { return f.String(m.facts), yes }
		case f.Strings != nil:
			v.list = func(m *machine) ([]string, tri) { return f.Strings(m.facts), yes }
		case f.Int != nil:
			v.num = func(m *machine) (int64, tri) { return f.Int(m.facts), yes }
		case f.Bool != nil:
			v.cond = func(m *machine) tri { return truth(f.Bool(m.facts)) }
		}
		vars = append(vars, v)
	}
	return vars
}

var hookNames = [...]string{"prerouting", "input", "forward", "output", "postrouting"}

func metaVariables() []Variable {
	owner := func(name, doc string, read func(*Meta) uint32) Variable {
		return Variable{Name: name, Doc: doc, from: fromPacket, num: func(m *machine) (int64, tri) {
			return int64(read(m.meta)), presentIf(m.meta.HasUID)
		}}
	}
	return []Variable{
		{Name: "meta.iifname", Doc: `device it came in by, "" for packets made here`, from: fromDevices,
			text: func(m *machine) (string, tri) { return m.in, yes }},
		{Name: "meta.oifname", Doc: `device it leaves by, "" before routing and for packets to here`, from: fromDevices,
			text: func(m *machine) (string, tri) { return m.out, yes }},
		perPacket(Variable{Name: "meta.hook", Doc: `"prerouting", "input", "forward", "output" or "postrouting"`,
			text: func(m *machine) (string, tri) { return hookNames[min(int(m.meta.Hook), len(hookNames)-1)], yes }}),
		perPacket(always("meta.queue", "number of the queue", func(m *machine) int64 { return int64(m.meta.Queue) })),
		perPacket(always("meta.mark", "packet mark", func(m *machine) int64 { return int64(m.meta.Mark) })),
		perPacket(always("meta.connmark", "conntrack mark", func(m *machine) int64 { return int64(m.meta.ConnMark) })),
		owner("meta.uid", "owner of the local socket, absent when there is none", func(m *Meta) uint32 { return m.UID }),
		owner("meta.gid", "group of the local socket, absent when there is none", func(m *Meta) uint32 { return m.GID }),
	}
}

// optionNames and anomalyNames are the names of single bits, so that a packet's are put
// together without allocation.
var (
	optionNames  = bitNames(16, func(bit uint32) []string { return packet.Option(bit).Names() })
	anomalyNames = bitNames(32, func(bit uint32) []string { return packet.Anomaly(bit).Names() })
)

func bitNames(bits int, names func(bit uint32) []string) []string {
	all := make([]string, bits)
	for i := range all {
		if n := names(1 << i); len(n) > 0 {
			all[i] = n[0]
		}
	}
	return all
}

// appendNames adds the names of the bits in set to names.
func appendNames(names []string, set uint32, all []string) []string {
	for ; set != 0; set &= set - 1 {
		names = append(names, all[bits.TrailingZeros32(set)])
	}
	return names
}
