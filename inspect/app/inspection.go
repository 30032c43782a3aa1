package app

// Inspection joins all analyzers for one flow. The zero value is ready after [Inspection.Start].
// It is not safe for concurrent use.
//
// A flow without payload stays undecided: nothing of it is known. The first bytes
// either choose an analyzer or make every field final.
type Inspection struct {
	Facts Facts

	flow     Flow
	alive    uint8 // analyzers of All that have not said NotMine
	analyzer *Analyzer
	parser   Parser

	prefix    [2][maxPrefix]byte // of a stream, until an analyzer is chosen
	prefixLen [2]uint8
	strays    uint8 // datagrams that no analyzer has taken for its own
}

// maxPrefix bounds how many bytes of a stream an analyzer may ask for before it says
// whether the protocol is its own.
const maxPrefix = 24

// maxStrays bounds how many datagrams are shown to analyzers that ask for more: one that
// servers ignore, sent first, would hide all that follow otherwise.
const maxStrays = 8

// Start makes the inspection ready for a new flow.
func (i *Inspection) Start(flow Flow) {
	i.Close()
	*i = Inspection{flow: flow, alive: 1<<len(All) - 1}
	if flow.Transport != TCP && flow.Transport != UDP {
		i.Facts.end()
	}
}

// Close gives the analyzer's state back. The facts stay.
func (i *Inspection) Close() {
	if i.parser != nil {
		i.analyzer.put(i.parser)
		i.parser, i.analyzer = nil, nil
	}
}

// Feed shows the next payload of one side: the bytes of a stream in order, each once,
// or a datagram. It reports whether the facts changed, and how many bytes it read:
// fewer than all when several messages were in data, so that each can be judged.
//
//	for len(data) > 0 {
//		n, changed := inspection.Feed(dir, data)
//		data = data[n:]
//		if changed {
//			// judge inspection.Facts
//		}
//	}
//
// After Facts.Done it does nothing and costs nothing.
func (i *Inspection) Feed(dir Dir, data []byte) (n int, changed bool) {
	f := &i.Facts
	if f.Done || len(data) == 0 {
		return len(data), false
	}
	known, final, version := f.Known, f.Final, f.version
	f.Known |= 1 << FieldGap
	if n = len(data); i.parser != nil || i.choose(dir&1, data) {
		var v Verdict
		n, v = i.parser.Feed(dir&1, data, f)
		i.judge(v)
	}
	return n, known != f.Known || final != f.Final || version != f.version
}

// Gap tells that n bytes of a stream were lost before the next Feed. It reports
// whether the facts changed.
func (i *Inspection) Gap(dir Dir, n int) (changed bool) {
	f := &i.Facts
	if f.Done {
		return false
	}
	f.Gap = true
	if i.parser == nil {
		f.end()
		return true
	}
	i.judge(i.parser.Gap(dir&1, n, f))
	return true
}

// choose asks the analyzers that are left about a side's first bytes, and shows the
// chosen one those that came in earlier calls.
func (i *Inspection) choose(dir Dir, data []byte) bool {
	first, kept := data, int(i.prefixLen[dir])
	stream := i.flow.Transport == TCP
	if stream && (kept > 0 || len(data) < maxPrefix) {
		i.prefixLen[dir] += uint8(copy(i.prefix[dir][kept:], data))
		first = i.prefix[dir][:i.prefixLen[dir]]
	} else if stream {
		first = data[:maxPrefix] // as if it had come byte by byte
	}
	for k, a := range All {
		if i.alive>>k&1 == 0 {
			continue
		}
		switch a.Match(i.flow, dir, first) {
		case Mine, Done:
			i.analyzer, i.parser = a, a.get(i.flow)
			for d := range i.prefix {
				early := i.prefix[d][:i.prefixLen[d]]
				if Dir(d) == dir {
					early = early[:kept]
				}
				if len(early) > 0 {
					i.parser.Feed(Dir(d), early, &i.Facts)
				}
			}
			return true
		case NotMine:
			i.alive &^= 1 << k
		case More:
			if stream && len(first) == maxPrefix {
				i.alive &^= 1 << k
			}
		}
	}
	if !stream {
		i.stray()
	}
	if i.alive == 0 {
		i.Facts.end()
	}
	return false
}

// stray counts a datagram that is nobody's. What only those analyzers could learn that
// have left is final.
func (i *Inspection) stray() {
	if i.alive == 0 {
		return
	}
	if i.strays++; i.strays == maxStrays {
		i.alive = 0
		i.Facts.Gap = true
		return
	}
	for k, a := range All {
		if i.alive>>k&1 == 0 {
			i.Facts.settle(fieldSet(a.Fields))
		}
	}
}

// judge acts on a parser's verdict.
func (i *Inspection) judge(v Verdict) {
	if v == Done || v == NotMine {
		i.Facts.end()
		i.Close()
	}
}
