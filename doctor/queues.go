package doctor

import (
	"errors"
	"fmt"
	"io/fs"
)

// Queues looks at the packet queues that have a reader.
var Queues = &Check{
	Name: "queues",
	Doc: `looks at the packet queues that somebody reads: packets that the kernel dropped, packets that
wait, and whether the reader's socket buffer holds what the queue may hold`,
	Run:     queues,
	Applies: onMachine,
}

const queueFile = "proc/net/netfilter/nfnetlink_queue"

// readQueues reads the queues that have a reader. Where the file is missing, the module is
// not loaded and nobody can read any.
func (s *Subject) readQueues() ([]queue, error) {
	text, err := s.read(queueFile)
	if errors.Is(err, fs.ErrNotExist) && s.exists("proc/net") {
		return nil, nil
	}
	return parseQueues(text), err
}

func queues(s *Subject) []Finding {
	all, err := s.readQueues()
	if err != nil {
		return []Finding{unread("The packet queues", err, "/"+queueFile)}
	}
	if len(all) == 0 {
		return []Finding{{Title: "Nobody reads a packet queue", Sure: Certain, Looked: []string{"/" + queueFile}}}
	}
	sockets := make(map[uint32]netlinkSocket)
	if text, err := s.read("proc/net/netlink"); err == nil {
		for _, k := range parseNetlink(text) {
			if k.Protocol == netlinkNetfilter {
				sockets[k.Port] = k
			}
		}
	}
	var found []Finding
	for _, q := range all {
		found = append(found, s.queueFinding(q, sockets[q.Port]))
	}
	return found
}

// Linux's defaults for a queue and what a packet takes in the reader's socket buffer:
// NFQNL_QMAX_DEFAULT packets, of which each has its own sk_buff with a page's worth or so.
const (
	defaultQueueLength = 1024
	perPacket          = 2304 // truesize of a packet of 1500 bytes, with its message
	perPacketHeader    = 1280
)

func (s *Subject) queueFinding(q queue, socket netlinkSocket) Finding {
	f := Finding{
		Looked: []string{"/" + queueFile, "/proc/net/netlink"}, Sure: Certain,
		Found: []string{fmt.Sprintf("port %d reads it; %d packets so far, %d waiting", q.Port, q.Sequence, q.Waiting)},
	}
	name := fmt.Sprintf("Queue %d", q.Number)
	switch {
	case q.UserDrop > 0:
		f.State, f.Title = Exposed, fmt.Sprintf("%s lost %d packets because its reader's socket buffer was full", name, q.UserDrop)
		f.Found = append(f.Found, fmt.Sprintf("%d bytes wait in the reader's socket, which has dropped %d messages", socket.Waiting, socket.Drops))
		f.Advice = []string{"Let the reader ask for a larger buffer (SO_RCVBUFFORCE, or raise net.core.rmem_max), for fewer bytes of each packet, or spread the load: queue to 0-3 fanout."}
	case q.Dropped > 0:
		f.State, f.Title = Exposed, fmt.Sprintf("%s lost %d packets because it was full", name, q.Dropped)
		f.Advice = []string{"Its reader is too slow, or stood still: make the queue longer (NFQA_CFG_QUEUE_MAXLEN), let it pass packets when it is full (fail open), or spread the load: queue to 0-3 fanout."}
	default:
		f.Title = name + " has a reader, and lost no packet"
		s.smallBuffer(q, &f)
	}
	return f
}

// smallBuffer compares what a queue of the default length may hold with its reader's socket
// buffer, or, where that is not known, with the buffer that a socket gets unasked.
func (s *Subject) smallBuffer(q queue, f *Finding) {
	each := min(perPacket, perPacketHeader+q.CopyRange)
	if q.CopyMode != copyPacket {
		each = perPacketHeader
	}
	need := uint64(defaultQueueLength * each)
	needs := fmt.Sprintf("%d packets, a queue's default length, take %s", defaultQueueLength, size(need))
	if buffer, ok := s.buffers[q.Port]; ok {
		f.Looked = append(f.Looked, "sock_diag")
		f.Found = append(f.Found, fmt.Sprintf("its reader's socket buffer has %s; %s", size(buffer), needs))
		if buffer < need {
			f.State, f.Sure, f.Title = Weak, Likely, fmt.Sprintf("Queue %d loses packets before it is full: its reader's socket buffer is small", q.Number)
			f.Advice = []string{"The reader ought to ask for more (SO_RCVBUFFORCE), for fewer packets in the queue, or for fewer bytes of each."}
		}
		return
	}
	buffer, err := s.sysctl("net/core/rmem_default")
	if err != nil || buffer < 0 || uint64(buffer) >= need {
		return
	}
	f.State, f.Sure, f.Title = Weak, Guess, fmt.Sprintf("Queue %d may lose packets before it is full, if its reader did not raise its socket buffer", q.Number)
	f.Found = append(f.Found, fmt.Sprintf("%s; a socket gets %s unasked (net.core.rmem_default)", needs, size(uint64(buffer))))
	f.Advice = []string{"The reader ought to set SO_RCVBUFFORCE. ss -f netlink -m shows what it has as rb."}
}

// Conntrack looks at connection tracking, on which rules that queue mostly rest.
var Conntrack = &Check{
	Name:    "conntrack",
	Doc:     `looks whether connection tracking is about to refuse new connections`,
	Run:     conntrack,
	Applies: onMachine,
}

func conntrack(s *Subject) []Finding {
	const dir = "net/netfilter/nf_conntrack_"
	f := Finding{Sure: Certain, Looked: []string{"/proc/sys/" + dir + "count", "/proc/sys/" + dir + "max"}}
	count, err := s.sysctl(dir + "count")
	most, err2 := s.sysctl(dir + "max")
	if errors.Is(err, fs.ErrNotExist) && s.exists("proc/sys/net") {
		f.Title = "Connections are not tracked"
		return []Finding{f}
	}
	if err != nil || err2 != nil {
		return []Finding{unread("Connection tracking", errors.Join(err, err2), f.Looked...)}
	}
	f.Found = []string{fmt.Sprintf("%d connections of %d", count, most)}
	switch {
	case most > 0 && count >= most:
		f.State, f.Title = Exposed, "Connection tracking is full: new connections are dropped"
	case most > 0 && count > most/10*8:
		f.State, f.Title = Weak, "Connection tracking is nearly full"
	default:
		f.Title = "Connection tracking has room"
		return []Finding{f}
	}
	f.Advice = []string{"Raise net.netfilter.nf_conntrack_max, or lower nf_conntrack_tcp_timeout_established."}
	return []Finding{f}
}
