package nfqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Queues are the queues that Open has bound.
type Queues struct {
	cfg    Config
	queues []*queue
	proc   *os.File // nil if it may not be read

	mu      sync.Mutex
	serving bool
	closed  bool
	done    chan struct{} // closed when Serve has returned
}

// Open binds the queues of cfg in the network namespace of the calling thread.
// From then on the kernel queues packets, which wait for Serve.
//
// Its errors are ErrBusy, ErrPermission and ErrUnsupported. If one queue of a
// range cannot be bound, none is.
func Open(cfg Config) (*Queues, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Queues{cfg: cfg, done: make(chan struct{})}
	// The file belongs to the network namespace in which it was opened.
	g.proc, _ = os.Open(procPath)
	for i := range cfg.Count {
		num := cfg.First + uint16(i)
		sock, err := bind(num, &g.cfg)
		if err != nil {
			g.Close()
			return nil, fmt.Errorf("bind queue %d: %w", num, err)
		}
		g.queues = append(g.queues, newQueue(num, &g.cfg, sock))
	}
	return g, nil
}

// Serve calls handle for each packet until ctx ends or Close is called, and
// then drains the queues as Close says. It returns nil then: what
// goes wrong meanwhile is counted and told to Config.Event. handle is called by
// several goroutines at a time if there are several queues; packets of one
// queue come one after the other.
func (g *Queues) Serve(ctx context.Context, handle Handler) error {
	return g.ServeEach(ctx, func(uint16) Handler { return handle })
}

// ServeEach is Serve with a handler for each queue, so that it can keep what
// belongs to one goroutine without a lock.
func (g *Queues) ServeEach(ctx context.Context, handler func(queue uint16) Handler) error {
	g.mu.Lock()
	if g.closed || g.serving {
		g.mu.Unlock()
		return fmt.Errorf("serve: %w", ErrClosed)
	}
	g.serving = true
	g.mu.Unlock()
	defer close(g.done)

	cancelled := context.AfterFunc(ctx, g.stop)
	defer cancelled()
	errs := make([]error, len(g.queues))
	var wg sync.WaitGroup
	for i, q := range g.queues {
		cpu := -1
		if len(g.cfg.CPUs) > 0 {
			cpu = g.cfg.CPUs[i%len(g.cfg.CPUs)]
		}
		handle := handler(q.num)
		wg.Go(func() {
			if errs[i] = q.serve(handle, cpu); errs[i] != nil {
				g.stop() // all serve, or none
				errs[i] = errors.Join(errs[i], q.out.close())
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stop has all queues drained.
func (g *Queues) stop() {
	for _, q := range g.queues {
		q.stop.Store(true)
		// The acknowledgement ends the waiting of receive.
		q.out.flush(appendNoop(nil))
	}
}

// Close unbinds the queues and returns when that is done. No packet is left
// without a verdict: the kernel stops queueing (with an accepting
// Config.Default it lets new packets pass, otherwise it drops them), what waits
// already is handled, packets held are waited for up to Config.Grace, and get
// Config.Default then. A handler must not call it.
func (g *Queues) Close() error {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	serving := g.serving
	g.mu.Unlock()
	if g.proc != nil {
		defer g.proc.Close()
	}
	if serving {
		g.stop()
		<-g.done
		return nil
	}
	if !first {
		return nil
	}
	var errs []error
	for _, q := range g.queues {
		q.stop.Store(true)
		errs = append(errs, q.drain(nil))
	}
	return errors.Join(errs...)
}

// Stats returns the counts of each queue. It may be called at any time, also
// after Close, and disturbs nobody.
func (g *Queues) Stats() []Stats {
	stats := make([]Stats, len(g.queues))
	for i, q := range g.queues {
		stats[i] = q.stats()
	}
	if g.proc == nil {
		return stats
	}
	// A seq_file: reading at offset 0 makes it be written anew.
	b, err := io.ReadAll(io.NewSectionReader(g.proc, 0, 1<<20))
	if err != nil {
		return stats
	}
	lines, err := parseKernelStats(b)
	if err != nil {
		return stats
	}
	for i := range lines {
		if n := int(lines[i].Queue) - int(g.cfg.First); n >= 0 && n < len(stats) {
			stats[n].Kernel = &lines[i]
		}
	}
	return stats
}
