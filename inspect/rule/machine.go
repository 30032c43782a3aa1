package rule

import (
	"net/netip"

	"inquest/inspect/app"
	"inquest/inspect/packet"
)

// tri is what an expression comes to. CEL has four outcomes, not two: see
// https://github.com/cel-expr/cel-spec/blob/master/doc/langdef.md on errors and
// partial state.
type tri uint8

const (
	no      tri = iota // false
	yes                // true; of other types than bool: there is a value
	unknown            // depends on a fact that is not known yet
	absent             // a CEL error: no such header, overflow, index out of range
)

func truth(b bool) tri {
	if b {
		return yes
	}
	return no
}

// sources is a set of where values come from: a bit for each [app.FieldID] and some
// more. It tells what an expression needs, and what must be taken for unknown.
type sources uint64

const (
	fromFacts    = sources(app.AllFields)
	fromPacket   = sources(1) << 63 // differs from packet to packet of a flow
	fromPatterns = sources(1) << 62 // becomes true when a pattern is seen
	fromTuple    = sources(1) << 61 // who talks to whom
	fromDevices  = sources(1) << 60 // in and out
)

func fromField(id app.FieldID) sources { return 1 << id }

// machine is what closures run on. One belongs to a [Scratch]; closures get a
// pointer to it and keep nothing.
type machine struct {
	env    *Env
	packet *packet.Packet
	facts  *app.Facts
	meta   *Meta

	tuple   packet.Tuple // as the rule at hand sees it
	ports   bool         // tuple has ports
	in, out string

	// hide has the sources whose values are unknown in this pass.
	hide sources

	iter [maxNesting]string // variables of exists and all

	options, anomalies []string // the packet's, when a rule asks
}

// maxNesting is how deep exists and all may be nested.
const maxNesting = 3

var (
	noFacts  app.Facts
	noMeta   Meta
	noPacket packet.Packet
)

// load makes the machine judge e, without choosing a scope.
func (m *machine) load(e *Env) {
	m.env, m.packet, m.facts, m.meta = e, e.Packet, e.Facts, e.Meta
	if m.packet == nil {
		m.packet = &noPacket
	}
	if m.facts == nil {
		m.facts = &noFacts
	}
	if m.meta == nil {
		m.meta = &noMeta
	}
}

// view is from where a rule looks at a packet.
type view uint8

const (
	asFlow    view = iota // the tuple of the flow's first packet
	asPacket              // the packet's own
	asReverse             // that of a packet the other way
)

// look chooses the tuple and devices that rules see.
func (m *machine) look(v view) {
	flow := &m.env.Flow
	if v == asFlow && flow.Src.IsValid() {
		m.tuple, m.in, m.out = flow.Tuple, flow.In, flow.Out
		// Later fragments are tracked in a flow of their own, which has no ports.
		m.ports = hasPorts(m.tuple.Proto) && (m.packet.HasTransport || m.tuple.SrcPort|m.tuple.DstPort != 0)
		return
	}
	p := m.packet
	m.tuple = packet.Tuple{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: p.Proto}
	m.in, m.out = m.meta.In, m.meta.Out
	m.ports = p.HasTransport && hasPorts(p.Proto)
	if v == asReverse {
		m.tuple = m.tuple.Reverse()
	}
}

func hasPorts(proto uint8) bool {
	switch proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoUDPLite:
		return true
	}
	return false
}

// Closures. A value's tri is yes, unknown or absent.
type (
	condFn         func(*machine) tri
	valueFn[T any] func(*machine) (T, tri)

	intFn   = valueFn[int64]
	textFn  = valueFn[string]
	bytesFn = valueFn[[]byte]
	addrFn  = valueFn[netip.Addr]
	listFn  = valueFn[[]string]
)

func constant[T any](v T) valueFn[T] {
	return func(*machine) (T, tri) { return v, yes }
}

// joinFn is the outcome of a function of two arguments one of which has no value.
type joinFn func(a, b tri) tri

// inOrder is the joinFn of CEL: the first argument without a value decides.
func inOrder(a, b tri) tri {
	if a != yes {
		return a
	}
	return b
}

// absentFirst is that of CEL's == and !=, where an error wins over unknown. It says
// more than inOrder: whatever the unknown one turns out to be, there is no value.
func absentFirst(a, b tri) tri {
	if a == absent || b == absent {
		return absent
	}
	return inOrder(a, b)
}
