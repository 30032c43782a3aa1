package inspect

import (
	"sync"
	"sync/atomic"
	"time"

	"inquest/inspect/app"
	"inquest/inspect/flow"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// Config says how much an Engine may hold and when it forgets. The zero value is
// useful.
type Config struct {
	// MaxFlows is the most flows that are known at a time; 0 means
	// flow.DefaultMaxFlows.
	MaxFlows int
	// Timeouts by the flows' state; zeros take flow.DefaultTimeouts. A flow that the
	// kernel has taken out of the queue is forgotten by them too, which harms
	// nothing: its conntrack mark stays.
	Timeouts flow.Timeouts
	// MaxMemory bounds, in bytes, what is held of payload and of what was learnt from
	// it: half for TCP segments that wait for those before them, a quarter for
	// messages that are not complete, a quarter for the facts and patterns of flows.
	// 0 means DefaultMaxMemory. The flow table is bounded by MaxFlows.
	MaxMemory int64
	// MaxStream bounds what waits in one direction of one connection; 0 means
	// flow.DefaultMaxBytes.
	MaxStream int
	// Overlap is whose bytes count when TCP segments disagree.
	Overlap flow.Policy
	// Search bounds how many bytes of a flow are searched for patterns, both
	// directions together; 0 means DefaultSearch.
	Search int
	// Shards of the flow table; 0 chooses by the number of CPUs.
	Shards int
}

const (
	DefaultMaxMemory = 256 << 20
	DefaultSearch    = 256 << 10

	minSessions = 64
)

// Engine judges packets by a set of rules. All its methods may be called at the same
// time; packets are inspected by its Workers.
type Engine struct {
	cfg      Config
	rules    atomic.Pointer[generation]
	flows    *flow.Table[value]
	sessions sessions
	limits   flow.Limits
	parsers  *app.Budget
	devices  devices

	// unseen are the facts of flows that have none: known to be absent. With gap they
	// are absent because there was no room to learn them.
	unseen [2]app.Facts

	mu      sync.Mutex // guards workers and reloads
	workers []*Worker
}

// generation is a set of rules from its loading to the next one's.
type generation struct {
	set    *rule.Set
	number uint32
	facts  app.FieldSet // that rules look at
	search bool         // there are patterns
}

// value is what is kept of each flow. It has no pointers, so that the garbage
// collector has nothing to look for in a million of them.
type value struct {
	session, serial uint32
	generation      uint32 // whose decision rule is, valid with decided
	rule            int32
	in, out         uint16 // of the first packet, see devices
	flags           uint8
}

const (
	decided uint8 = 1 << iota
	// settled: the payload need not be looked at any more, and there is no session.
	settled
	// incomplete: as settled, but more might have been learnt.
	incomplete
)

// New returns an engine that judges by set.
func New(set *rule.Set, cfg Config) *Engine {
	if cfg.MaxMemory <= 0 {
		cfg.MaxMemory = DefaultMaxMemory
	}
	if cfg.Search <= 0 {
		cfg.Search = DefaultSearch
	}
	e := &Engine{cfg: cfg}
	e.limits = flow.Limits{Policy: cfg.Overlap, MaxBytes: cfg.MaxStream, Budget: flow.NewBudget(cfg.MaxMemory / 2)}
	e.parsers = app.NewBudget(cfg.MaxMemory / 4)
	e.sessions.max = max(minSessions, int(cfg.MaxMemory/4/sessionSize))
	e.sessions.limits = &e.limits
	e.sessions.slabs.Store(new([]*[sessionSlab]session))
	var none app.Inspection
	none.Start(app.Flow{})
	e.unseen = [2]app.Facts{none.Facts, none.Facts}
	e.unseen[1].Gap = true
	e.flows = flow.NewTable(flow.Config[value]{
		MaxFlows: cfg.MaxFlows, Timeouts: cfg.Timeouts, Shards: cfg.Shards,
		Removed: func(f *flow.Flow[value], _ flow.Reason) {
			if f.Value.session != 0 {
				e.sessions.remove(f.Value.session, f.Value.serial)
			}
		},
	})
	e.rules.Store(newGeneration(set, 1))
	return e
}

// The facts of flows by TCP and UDP before their first payload: what the other
// transport alone carries is known to be absent, so that rules about it decide at
// once.
var (
	beforeTCP = ruledOut(app.QUIC)
	beforeUDP = ruledOut(app.TLS, app.HTTP, app.SSH)
)

func ruledOut(analyzers ...*app.Analyzer) *app.Facts {
	f := new(app.Facts)
	for _, a := range analyzers {
		for _, field := range a.Fields {
			f.Final |= app.Set(field.ID)
		}
	}
	f.Known = f.Final
	return f
}

// before returns the facts of a flow without payload.
func before(proto uint8) *app.Facts {
	if proto == packet.ProtoUDP {
		return beforeUDP
	}
	return beforeTCP
}

// nothing returns the facts of a flow of which nothing will be known.
func (e *Engine) nothing(flags uint8) *app.Facts {
	if flags&incomplete != 0 {
		return &e.unseen[1]
	}
	return &e.unseen[0]
}

func newGeneration(set *rule.Set, number uint32) *generation {
	return &generation{set: set, number: number, facts: set.Facts(), search: set.Patterns().Len() > 0}
}

// Set returns the rules in force.
func (e *Engine) Set() *rule.Set { return e.rules.Load().set }

// Reload puts other rules in force, at once and for whole packets: each is judged by
// one set or the other. Flows are kept with all that is known of them. Those that were
// decided are judged anew when their next packet comes; those that the kernel has
// taken out of the queue come no more, and stay as they were decided. The counts by
// rule begin at zero.
func (e *Engine) Reload(set *rule.Set) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rules.Store(newGeneration(set, e.rules.Load().number+1))
}

// Expire forgets the flows that have timed out. Packets do that bit by bit; calling
// it every second or so also does it when there are none. The time is of the clock
// whose times Inspect is given.
func (e *Engine) Expire(now int64) { e.flows.Expire(now) }

// Timeout returns after how long without a packet a flow in a state is forgotten.
func (e *Engine) Timeout(s flow.State) time.Duration { return e.flows.Timeout(s) }
