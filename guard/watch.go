package guard

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watcher keeps carve-outs in force while others change the rules. It belongs to the
// network namespace in which it was made.
//
// A carve-out is a rule in somebody else's chain, so who loads that chain anew takes it
// away. It cannot be anywhere else: the verdict accept of an earlier chain ends that
// chain, not those that come later. Between the reload and the carve-out's return
// SYN/ACKs may be queued; how long that is [Watcher.Run] tells.
type Watcher struct {
	changes *netlink.Conn
	netns   *namespace
	// Interval is how often the older tables of iptables are read, whose changes the
	// kernel does not tell.
	Interval time.Duration
}

// groupNFTables is the multicast group of changes of nftables, NFNLGRP_NFTABLES.
const groupNFTables = 7

// Watch begins to watch the network namespace of the calling thread.
func Watch(ctx context.Context) (*Watcher, error) {
	ns, err := ownNamespace()
	if err != nil {
		return nil, err
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (groupNFTables - 1)})
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("watch nftables: %w", explained(err))
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	return &Watcher{changes: conn, netns: ns, Interval: 2 * time.Second}, nil
}

// Look is what a [Watcher] tells.
type Look struct {
	*Rules               // as they are now
	After  time.Duration // from the news of a change to the carve-outs' return
	Err    error         // in place of Rules: it is tried again after the watcher's Interval
}

// Run applies the carve-outs now and after each change, until the context ends. tell
// hears of each time that there was something to do, and of the first. Only if that
// fails it is the end: what fails later may work the next time.
func (w *Watcher) Run(ctx context.Context, tell func(Look)) error {
	defer w.netns.Close()
	news := make(chan time.Time, 1)
	go w.listen(ctx, news)
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if err := w.netns.enter(); err != nil {
			result <- err
			return
		}
		result <- w.keep(ctx, news, tell)
	}()
	return <-result
}

func (w *Watcher) listen(ctx context.Context, news chan<- time.Time) {
	for {
		// An overrun means that something has changed, too.
		_, err := w.changes.Receive()
		if err != nil && (ctx.Err() != nil || !errors.Is(err, unix.ENOBUFS)) {
			return
		}
		select {
		case news <- time.Now():
		default: // one that waits is enough
		}
	}
}

func (w *Watcher) keep(ctx context.Context, news <-chan time.Time, tell func(Look)) error {
	tick := time.NewTicker(w.Interval)
	defer tick.Stop()
	since := time.Now()
	for first := true; ; first = false {
		rules, did, err := keepOnce(ctx, first)
		switch {
		case ctx.Err() != nil:
			return nil
		case first && err != nil:
			return err
		case err != nil:
			tell(Look{Err: err})
		case did:
			tell(Look{Rules: rules, After: time.Since(since)})
		}
		select {
		case <-ctx.Done():
			return nil
		case since = <-news:
		case since = <-tick.C:
		}
	}
}

// keepOnce does what there is to do, and reports whether it was anything.
func keepOnce(ctx context.Context, always bool) (r *Rules, did bool, err error) {
	if r, err = ReadRules(ctx); err != nil || !always && !r.wants() {
		return r, false, err
	}
	r, err = ApplyRules(ctx)
	return r, true, err
}

// wants reports whether there is anything that ApplyRules would do.
func (r *Rules) wants() bool {
	if len(r.nft) > 0 {
		return true
	}
	for _, x := range r.xtables {
		if x.script() != "" {
			return true
		}
	}
	return false
}
