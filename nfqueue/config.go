package nfqueue

import (
	"fmt"
	"time"
)

// Config says which queues to bind and how. The zero Config is queue 0 with
// whole packets, and what nobody judged is dropped.
type Config struct {
	// First is the number of the first queue, Count how many there are from it
	// on; 0 means 1. A range is what `queue num 0-3 fanout` and
	// `--queue-balance 0:3` feed. Each queue has a socket and a goroutine.
	First uint16
	Count int

	// Mode says what of a packet is shown, CopyRange how many bytes of it; 0
	// means all, up to MaxPayload. Packet.Len is the length it had.
	Mode      Mode
	CopyRange uint32

	// MaxLen is how many packets may wait in the kernel for their verdict, held
	// ones included; 0 means 4096 (the kernel's own default is 1024). What
	// comes when the queue is full is dropped, or passes with FailOpen.
	MaxLen uint32

	// FailOpen lets packets pass that find the queue full or the socket's
	// buffer overrun (3.6).
	FailOpen bool

	// Conntrack shows each packet's connection, see Packet.Conntrack. It needs
	// nf_conntrack_netlink and NETFILTER_NETLINK_GLUE_CT.
	Conntrack bool

	// GSO shows packets before they are segmented, up to 64 KiB each, and
	// before the checksum of locally made ones is filled in; see Packet.Info.
	// Without it the kernel does both for every packet, which costs more than
	// anything else here (3.10).
	GSO bool

	// UIDGID shows the owner of the socket a packet is from or for (3.14);
	// SecCtx shows its security label (4.2, NETWORK_SECMARK).
	UIDGID bool
	SecCtx bool

	// Timestamps has the kernel note when packets come in, see
	// Packet.Timestamp; Stats.Latency then counts from that moment and so
	// contains the time spent in the queue. It costs a clock read per
	// packet that the machine receives, also for those that are not queued,
	// and begins a moment after Open.
	Timestamps bool

	// Default is the verdict of packets for which the handler returned the
	// zero Verdict, or that are still held when the queue is closed. Its zero
	// value means Drop: what the kernel does when a process dies.
	Default Verdict

	// Grace is how long a Close, or a Serve whose context ended, waits for
	// the verdicts of packets held before they get Default.
	Grace time.Duration

	// CPUs pins the thread of queue First+i to CPU CPUs[i%len(CPUs)].
	CPUs []int

	// Batch is how many packets one system call receives at most, and so how
	// many share one sending of verdicts; 0 means 64, the most is 1024. Fewer
	// shorten the wait when packets back up, for more CPU time a packet;
	// more than 64 gain nothing.
	Batch int

	// MaxDelay bounds how long a verdict may wait for others to be sent with:
	// they are sent when all packets received together are judged, and
	// also after the first handler that returns later than this. 0 means 200 µs.
	MaxDelay time.Duration

	// BusyPoll is how long to look for the next packet before sleeping, which
	// spares both sides the wake-up. It is only done while packets come in less
	// time than that from each other, so that a quiet queue burns nothing. 0
	// means 20 µs, less than 0 never.
	BusyPoll time.Duration

	// ReadBuffer is the socket's receive buffer in bytes, beyond
	// net.core.rmem_max if need be; 0 means 64 MiB. It is a limit, of which a
	// packet that waits to be read takes its size and about 1 KiB. Without
	// CAP_NET_ADMIN in the first user namespace rmem_max is the limit.
	ReadBuffer int

	// Event, if set, is told what goes wrong without ending Serve. It is called
	// by the goroutine of the queue, which waits for it, and by one of its own
	// while a queue that someone else has is asked for again: maybe by several
	// at the same time.
	Event func(Event)
}

// Mode says what the kernel shows of a packet.
type Mode uint8

// The modes. CopyMeta shows everything but the payload.
const (
	CopyPacket Mode = iota
	CopyMeta
)

func (m Mode) wire() uint8 {
	if m == CopyMeta {
		return 1 // NFQNL_COPY_META
	}
	return 2 // NFQNL_COPY_PACKET
}

// An Event is something that went wrong and that Stats counts.
type Event struct {
	Queue   uint16
	Err     error  // ErrOverrun, ErrFlushed, ErrVanished, ErrRefused, ErrMalformed, ErrBusy
	Packets uint64 // how many packets it concerns, at least; 0 if that is not known
	Errno   uint32 // what the kernel said, if it did
}

func (e Event) String() string {
	return fmt.Sprintf("queue %d: %v (%d packets)", e.Queue, e.Err, e.Packets)
}

func (c Config) withDefaults() (Config, error) {
	if c.Count == 0 {
		c.Count = 1
	}
	if c.Count < 0 || int(c.First)+c.Count > 1<<16 {
		return c, fmt.Errorf("queues %d to %d: a queue's number has 16 bits", c.First, int(c.First)+c.Count-1)
	}
	if c.MaxLen == 0 {
		c.MaxLen = 4096
	}
	if c.CopyRange == 0 || c.CopyRange > MaxPayload {
		c.CopyRange = MaxPayload
	}
	if c.Batch == 0 {
		c.Batch = 64
	}
	if c.Batch < 1 || c.Batch > 1024 {
		return c, fmt.Errorf("batch of %d packets: want 1 to 1024", c.Batch)
	}
	if c.BusyPoll == 0 {
		c.BusyPoll = 20 * time.Microsecond
	}
	if c.MaxDelay <= 0 {
		c.MaxDelay = 200 * time.Microsecond
	}
	if c.ReadBuffer <= 0 {
		c.ReadBuffer = 64 << 20
	}
	if !c.Default.Given() {
		c.Default = Drop()
	}
	if c.Default.has&hasPayload != 0 {
		return c, fmt.Errorf("default verdict: a payload cannot be the same for all packets")
	}
	for _, cpu := range c.CPUs {
		if cpu < 0 || cpu >= 1024 {
			return c, fmt.Errorf("no CPU %d", cpu)
		}
	}
	return c, nil
}

// configFlags names the flags as ErrUnsupported reports them.
var configFlags = []struct {
	name string
	flag uint32
}{
	{"fail-open", flagFailOpen},
	{"conntrack", flagConntrack},
	{"GSO", flagGSO},
	{"UID and GID", flagUIDGID},
	{"security context", flagSecCtx},
}

func (c *Config) flags() uint32 {
	var f uint32
	for i, on := range []bool{c.FailOpen, c.Conntrack, c.GSO, c.UIDGID, c.SecCtx} {
		if on {
			f |= configFlags[i].flag
		}
	}
	return f
}
