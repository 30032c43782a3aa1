package nfqueue

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// A transport is a netlink socket, or a test's model of one. receive belongs to
// one goroutine, the messages it got are valid until the next; send is called
// by one goroutine at a time.
type transport interface {
	// receive reads the messages that are there, without waiting or, if wait
	// is set, waiting for the first. 0 and nil: there are none, or wake was called.
	receive(wait bool) (int, error)
	// message is the i-th of those received, complete unless cut.
	message(i int) (b []byte, cut bool)
	// send sends messages and says how many bytes of them the kernel has taken.
	send(b []byte) (int, error)
	close() error
}

// An outbox sends messages in the order in which they were put in, from
// whichever goroutine comes first: the others that wait find theirs sent.
type outbox struct {
	sock transport

	sending sync.Mutex // held while sending; comes before mu
	closed  bool       // guarded by sending
	spare   []byte     // guarded by sending
	sends   atomic.Uint64

	mu  sync.Mutex
	out []byte // guarded by mu
}

// flush sends what is in the outbox and then more.
func (o *outbox) flush(more []byte) error {
	o.sending.Lock()
	defer o.sending.Unlock()
	o.mu.Lock()
	b := o.out
	if len(b) > 0 {
		o.out = o.spare[:0]
		o.spare = nil
	}
	o.mu.Unlock()

	own := len(b) > 0
	if own {
		b = append(b, more...)
	} else {
		b = more
	}
	if len(b) == 0 {
		return nil
	}
	if o.closed {
		return ErrClosed
	}
	rest, err := o.send(b)
	if err != nil {
		// Nothing may overtake what could not be sent: it goes first next time.
		o.mu.Lock()
		o.out = append(append([]byte(nil), rest...), o.out...)
		o.mu.Unlock()
		return err
	}
	if own {
		o.spare = b[:0]
	}
	return nil
}

// send sends b, and again while the kernel is short of memory, for up to 100 ms.
func (o *outbox) send(b []byte) (rest []byte, err error) {
	for try := 0; len(b) > 0; {
		n, err := o.sock.send(b)
		o.sends.Add(1)
		b = b[n:]
		switch {
		case err == nil:
		case errors.Is(err, errAgain) && try < 100:
			try++
			time.Sleep(time.Millisecond)
		default:
			return b, err
		}
	}
	return nil, nil
}

// close makes every later flush fail and closes the socket.
func (o *outbox) close() error {
	o.sending.Lock()
	defer o.sending.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	return o.sock.close()
}

// errAgain: the kernel could not take a message at this moment.
var errAgain = errors.New("kernel is short of memory")
