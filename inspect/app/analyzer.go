package app

import "sync"

// Analyzer recognises one application protocol. Each is one file and one variable,
// listed in [All].
type Analyzer struct {
	Name string // "tls"
	Doc  string // one line

	// Fields are what it can learn.
	Fields []Field

	// Match judges the first bytes that one side sent: [More] when they are too few,
	// [Mine] when the parser shall look at the flow, [NotMine]. Of a stream it is shown
	// a growing beginning, at least maxPrefix bytes before More counts as NotMine; of
	// datagrams each, whole, and with More at most maxStrays of them.
	Match func(flow Flow, dir Dir, first []byte) Verdict

	// New makes the state for one flow. It is reused for others after Close.
	New func() Parser

	pool sync.Pool
}

// All has every analyzer, in the order in which they are asked.
var All = []*Analyzer{TLS, SSH, HTTP, QUIC, DNS}

// Flow is what an analyzer may know of a flow besides its payload.
type Flow struct {
	Transport              Transport
	ClientPort, ServerPort uint16

	// Budget bounds what the parsers of all flows that share it may hold. With nil
	// only the bounds of each flow hold.
	Budget *Budget
}

// Transport is the IP protocol number of what carries the payload.
type Transport uint8

// The transports that have analyzers. Flows of others have no application facts.
const (
	TCP Transport = 6
	UDP Transport = 17
)

// Dir is the direction of payload within a flow.
type Dir uint8

// The directions; the client is who sent the flow's first packet.
const (
	ToServer Dir = iota
	ToClient
)

// Verdict is what a parser says of the bytes so far.
type Verdict uint8

// The verdicts.
const (
	More    Verdict = iota // cannot tell yet
	Mine                   // recognised; more may be learnt
	Done                   // nothing more will be learnt
	NotMine                // another protocol
)

// Parser reads one flow: the bytes of a stream in order, each once, in pieces of any
// size, or datagrams one by one. It copies what it needs later into bounded memory.
type Parser interface {
	// Start begins a flow.
	Start(flow Flow)

	// Feed reads data and writes what it learns to f. It stops behind a message
	// whose facts the next one would replace: n < len(data) only then, and the
	// caller, having looked at f, feeds the rest.
	Feed(dir Dir, data []byte, f *Facts) (n int, v Verdict)

	// Gap tells that n bytes of a stream were lost before the next Feed.
	Gap(dir Dir, n int, f *Facts) Verdict

	// Close ends the flow and lets go of what it held.
	Close()
}

func (a *Analyzer) get(flow Flow) Parser {
	p, ok := a.pool.Get().(Parser)
	if !ok {
		p = a.New()
	}
	p.Start(flow)
	return p
}

func (a *Analyzer) put(p Parser) {
	p.Close()
	a.pool.Put(p)
}
