package nfqueue

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// kernel is a model of nfnetlink_queue and of the socket that has bound one of
// its queues, as net/netfilter/nfnetlink_queue.c has it.
type kernel struct {
	mu   sync.Mutex
	cond sync.Cond

	bound    bool
	seq      uint32
	maxLen   int
	failOpen bool
	queue    []entry
	inbox    [][]byte // what the socket has to be read
	room     int      // datagrams the socket's buffer takes; 0: all
	noMemory int      // how many sends fail
	overruns int      // how many receives report one
	taken    bool     // another socket has the queue

	batch    int // datagrams a receive takes
	received [][]byte
	closed   bool

	// What became of each packet, by its number. A packet that was never
	// queued or that the kernel flushed is not judged.
	fates   map[int][]string
	batches int // batch messages
	judged  int // by batch messages
}

type entry struct {
	id     uint32
	number int
}

func newKernel() *kernel {
	k := &kernel{bound: true, maxLen: 1 << 20, batch: 64, fates: map[int][]string{}}
	k.cond.L = &k.mu
	return k
}

// arrive queues packet number n, which it carries in its mark.
func (k *kernel) arrive(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.bound {
		k.fates[n] = append(k.fates[n], "unbound")
		return
	}
	if len(k.queue) >= k.maxLen {
		k.fates[n] = append(k.fates[n], map[bool]string{true: "failopen", false: "full"}[k.failOpen])
		return
	}
	k.seq++
	if k.room > 0 && len(k.inbox) >= k.room {
		k.fates[n] = append(k.fates[n], "lost")
		return
	}
	k.queue = append(k.queue, entry{k.seq, n})
	k.deliver(packetMessage(k.seq, uint32(n)))
}

// packetMessage is what the kernel sends for a packet.
func packetMessage(id, mark uint32) []byte {
	b, start := message(nil, typePacket, 0, 0, 7)
	b[start+headerLen] = 2
	hdr := network.AppendUint32(nil, id)
	hdr = append(hdr, 0x08, 0x00, uint8(LocalIn))
	b = attrBytes(b, attrPacketHdr, hdr)
	b = attr32(b, attrMark, mark)
	b = attrBytes(b, attrPayload, []byte("packet"))
	return end(b, start)
}

func (k *kernel) deliver(b []byte) {
	k.inbox = append(k.inbox, b)
	k.cond.Signal()
}

// flush drops all that is queued, as the removal of a hook does.
func (k *kernel) flush() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop()
}

func (k *kernel) drop() {
	for _, e := range k.queue {
		k.fates[e.number] = append(k.fates[e.number], "flushed")
	}
	k.queue = nil
}

// vanish unbinds the queue behind the program's back.
func (k *kernel) vanish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop()
	k.bound = false
}

func (k *kernel) receive(wait bool) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for wait && len(k.inbox) == 0 {
		k.cond.Wait()
	}
	if k.overruns > 0 {
		k.overruns--
		return 0, ErrOverrun
	}
	n := min(k.batch, len(k.inbox))
	k.received = slices.Clone(k.inbox[:n])
	k.inbox = k.inbox[n:]
	return n, nil
}

func (k *kernel) message(i int) ([]byte, bool) { return k.received[i], false }

func (k *kernel) send(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		panic("send to a closed socket")
	}
	if k.noMemory > 0 {
		k.noMemory--
		return 0, errAgain
	}
	for sent := 0; sent < len(b); {
		n := int(native.Uint32(b[sent:]))
		if n < headerLen || sent+n > len(b) {
			panic("message that is not whole")
		}
		m := b[sent : sent+n]
		errno := k.do(native.Uint16(m[4:]), m[headerLen:])
		if errno != 0 || native.Uint16(m[6:])&flagAck != 0 {
			e, start := message(nil, typeError, 0, 0, 0)
			e = native.AppendUint32(e[:start+headerLen], -uint32(errno))
			k.deliver(end(append(e, m[:headerLen]...), start))
		}
		sent += align(n)
	}
	return len(b), nil
}

func (k *kernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop()
	k.bound, k.closed = false, true
	return nil
}

func (k *kernel) do(typ uint16, b []byte) syscall.Errno {
	if typ == typeNoop {
		return 0
	}
	attr := map[uint16][]byte{}
	if !attributes(b[genLen:], func(t uint16, v []byte) { attr[t] = v }) {
		panic("malformed attributes")
	}
	if typ == typeConfig {
		return k.configure(attr)
	}
	if !k.bound {
		return syscall.ENODEV
	}
	hdr := attr[attrVerdictHdr]
	verdict, id := network.Uint32(hdr), network.Uint32(hdr[4:])
	said := fmt.Sprint(verdict)
	if m := attr[attrMark]; m != nil {
		said += fmt.Sprintf(" mark %d", network.Uint32(m))
	}
	if p := attr[attrPayload]; p != nil {
		said += fmt.Sprintf(" payload %q", p)
	}
	if ct := attr[attrCT]; ct != nil {
		said += fmt.Sprintf(" ct %d", network.Uint32(ct[attrHeader:]))
	}
	var judged []entry
	if typ == typeBatch {
		for len(k.queue) > 0 && int32(k.queue[0].id-id) <= 0 {
			judged = append(judged, k.queue[0])
			k.queue = k.queue[1:]
		}
		k.batches++
		k.judged += len(judged)
	} else if i := slices.IndexFunc(k.queue, func(e entry) bool { return e.id == id }); i >= 0 {
		judged = append(judged, k.queue[i])
		k.queue = slices.Delete(k.queue, i, i+1)
	}
	for _, e := range judged {
		k.fates[e.number] = append(k.fates[e.number], said)
	}
	if judged == nil {
		return syscall.ENOENT
	}
	return 0
}

func (k *kernel) configure(attr map[uint16][]byte) syscall.Errno {
	if cmd := attr[cfgCmd]; cmd != nil {
		switch cmd[0] {
		case cmdBind:
			if k.taken {
				return syscall.EPERM
			}
			if k.bound {
				return syscall.EBUSY
			}
			k.bound, k.seq = true, 0
		case cmdUnbind:
			k.drop()
			k.bound = false
			return 0
		}
	}
	if v := attr[cfgMaxLen]; v != nil {
		k.maxLen = int(network.Uint32(v))
	}
	if v := attr[cfgFlags]; v != nil && network.Uint32(attr[cfgMask])&flagFailOpen != 0 {
		k.failOpen = network.Uint32(v)&flagFailOpen != 0
	}
	return 0
}

// fate is what became of packet n, which must be one thing.
func (k *kernel) fate(t testing.TB, n int) string {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.fates[n]) != 1 {
		t.Fatalf("packet %d: %q, want one fate", n, k.fates[n])
	}
	return k.fates[n][0]
}
