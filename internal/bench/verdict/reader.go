package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"inquest/nfqueue"
)

// reader is this program as a contestant: package nfqueue alone, with a handler that
// accepts everything. With -decide it sets the mark's decided bit.
func reader(args []string) error {
	flags := flag.NewFlagSet("reader", flag.ContinueOnError)
	queue := flags.Uint("queue", 0, "")
	length := flags.Uint("length", 0, "")
	batch := flags.Int("batch", 0, "")
	busy := flags.Duration("busy", 0, "")
	gso := flags.Bool("gso", true, "")
	decide := flags.Bool("decide", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	queues, err := nfqueue.Open(nfqueue.Config{
		First: uint16(*queue), MaxLen: uint32(*length), GSO: *gso, Batch: *batch, BusyPoll: *busy,
		Event: func(e nfqueue.Event) { fmt.Fprintln(os.Stderr, e) },
	})
	if err != nil {
		return err
	}
	defer queues.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	verdict := nfqueue.Accept()
	if *decide {
		verdict = verdict.WithMark(1)
	}
	return queues.Serve(ctx, func(p *nfqueue.Packet) nfqueue.Verdict { return verdict })
}
