package verdict

import (
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Config is the section "daemon" of a rule file: how packets come to the daemon, and
// what happens when it cannot judge them. [Parse] fills in the defaults.
type Config struct {
	Queues   Queues
	Fail     Fail     // has no default
	Hooks    []Hook   // where packets are taken from: input, forward, output
	Priority int32    // of the chains at the hooks; those of a firewall, "filter", have 0
	Table    string   // name of the nftables table
	CarveOut CarveOut // of SYN/ACKs that this machine makes
	Shortcut bool     // decided flows leave the queue, by their conntrack mark
	Mark     Mark     // bits of packet and conntrack marks that are ours
	Keep     bool     // the table outlives the daemon
	Exclude  Exclude  // what is never queued

	Length     uint32        // packets that wait in one queue, at most
	Copy       uint32        // bytes of a packet that are looked at, at most; 0 for all
	GSO        bool          // packets come as large as the kernel has them, not cut to the MTU
	Fanout     bool          // the CPU that a packet is on chooses its queue, not a hash of its addresses
	Pin        []int         // CPUs for the workers, in the order of their queues; empty for none
	MaxDelay   time.Duration // a verdict waits at most this long to be sent with others
	ReadBuffer int           // bytes of the socket's receive buffer

	Flows Flows

	Metrics string // host:port of /metrics and /healthz; "" for none
	PProf   bool   // /debug/pprof there
	Socket  string // Unix socket that "verdict top" reads; "" for none
	Log     Log
}

// Queues is a range of queue numbers.
type Queues struct {
	First uint16
	Count int // 1 to 65535
}

// Fail says what becomes of a packet that the daemon cannot judge: it is not running,
// does not keep up, or a worker has failed.
type Fail uint8

// The two ways to fail.
const (
	FailClosed Fail = iota // such packets are dropped
	FailOpen               // such packets pass, uninspected
)

func (f Fail) String() string { return [...]string{"closed", "open"}[f] }

// Hook is where in the kernel packets are taken from.
type Hook uint8

// The hooks; the values are those of the kernel's enum nf_inet_hooks.
const (
	Input   Hook = unix.NF_INET_LOCAL_IN
	Forward Hook = unix.NF_INET_FORWARD
	Output  Hook = unix.NF_INET_LOCAL_OUT
)

var hookNames = map[Hook]string{Input: "input", Forward: "forward", Output: "output"}

func (h Hook) String() string { return hookNames[h] }

// CarveOut says when SYN/ACKs that this machine makes are kept out of the queues.
type CarveOut uint8

// The choices.
const (
	CarveOutAuto   CarveOut = iota // unless the kernel is known to be safe, see [Exposed]
	CarveOutAlways                 // on every kernel
	CarveOutNever                  // not even on a kernel that has the bug
)

func (c CarveOut) String() string { return [...]string{"auto", "always", "never"}[c] }

// Mark is a mask of four or more neighbouring bits in the marks of packets and of
// conntrack entries, through which the daemon tells the kernel's rules what to do.
type Mark uint32

// Codes that the lowest four bits of a mark say. A packet with one comes out of the
// queue to go through the chain once more (NF_REPEAT). Without codeOnce its conntrack
// entry gets the code too, and what it says holds for the rest of the flow.
const (
	codeAccept = 1
	codeDrop   = 2
	codeReject = 3 // and the following ones, by rule.Answer
	codeOnce   = 8
)

// value is the mark that says a code.
func (m Mark) value(code uint32) uint32 { return code * (uint32(m) & -uint32(m)) }

// Exclude is what is never queued.
type Exclude struct {
	Interfaces []string       // by name, in or out; wg+ stands for all that begin with wg
	Networks   []netip.Prefix // packets from or to them
	Ports      []Port         // packets from or to them
}

// Port is a port of a transport protocol.
type Port struct {
	Protocol uint8 // IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP
	Number   uint16
}

// Flows bounds what is remembered of flows.
type Flows struct {
	Max    int   // flows at a time
	Memory int64 // bytes for the data of streams that are not decided yet
}

// Log is what the daemon's own log looks like.
type Log struct {
	JSON  bool
	Level slog.Level
	Rate  int // entries a second that one rule may write
}

// defaults are what a section gets that says no more than it must.
func defaults() Config {
	return Config{
		Queues:     Queues{First: 0, Count: 1},
		Hooks:      []Hook{Input, Forward, Output},
		Priority:   10,
		Table:      "inquest",
		Shortcut:   true,
		Mark:       0xf0000000,
		Length:     8192,
		GSO:        true,
		MaxDelay:   200 * time.Microsecond,
		ReadBuffer: 64 << 20,
		Flows:      Flows{Max: 1 << 20, Memory: 256 << 20},
		Socket:     "/run/inquest/verdict.sock",
		Log:        Log{Level: slog.LevelInfo, Rate: 10},
	}
}
