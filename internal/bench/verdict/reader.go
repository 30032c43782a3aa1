package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"inquest/inspect"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
	"inquest/nfqueue"
)

// decidedMark is set on the packets of flows that need not be queued any more.
const decidedMark = 1

// reader is this program as a contestant: package nfqueue with a handler that accepts
// everything, or one that asks package inspect.
func reader(args []string) error {
	flags := flag.NewFlagSet("reader", flag.ContinueOnError)
	queue := flags.Uint("queue", 0, "number of the queue")
	length := flags.Uint("length", 0, "length of the queue")
	batch := flags.Int("batch", 0, "packets received at once")
	busy := flags.Duration("busy", 0, "look that long for packets before sleeping")
	mark := flags.Bool("decide", false, "accept with the mark that takes the flow out of the queue")
	rules := flags.String("rules", "", "judge by a hundred rules: flow, or packet for some that look at every packet")
	if err := flags.Parse(args); err != nil {
		return err
	}
	accept := nfqueue.Accept()
	if *mark {
		accept = accept.WithMark(decidedMark)
	}
	handler := func(uint16) nfqueue.Handler {
		return func(*nfqueue.Packet) nfqueue.Verdict { return accept }
	}
	if *rules != "" {
		set, err := rule.Load("rules.yaml", []byte(hundredRules(*rules == "packet")))
		if err != nil {
			return err
		}
		engine := inspect.New(set, inspect.Config{})
		handler = func(uint16) nfqueue.Handler { return judge(engine) }
	}
	queues, err := nfqueue.Open(nfqueue.Config{
		First: uint16(*queue), MaxLen: uint32(*length), GSO: true, Batch: *batch, BusyPoll: *busy,
		Event: func(e nfqueue.Event) { fmt.Fprintln(os.Stderr, e) },
	})
	if err != nil {
		return err
	}
	defer queues.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return queues.ServeEach(ctx, handler)
}

// judge returns a handler that gives the verdicts of an engine of its own worker.
func judge(e *inspect.Engine) nfqueue.Handler {
	w := e.Worker()
	var meta rule.Meta
	return func(p *nfqueue.Packet) nfqueue.Verdict {
		meta.Mark, meta.Hook, meta.Queue = p.Mark, uint8(p.Hook), p.Queue
		switch {
		case p.Info&nfqueue.ChecksumNotReady != 0:
			meta.Checksum = packet.ChecksumPartial
		case p.Info&nfqueue.ChecksumNotVerified != 0:
			meta.Checksum = packet.ChecksumUnverified
		default:
			meta.Checksum = packet.ChecksumVerified
		}
		d := w.Inspect(p.Payload, &meta, p.Received)
		switch {
		case d.Verdict.Kind != rule.Accept:
			return nfqueue.Drop()
		case d.Decided:
			return nfqueue.Accept().WithMark(decidedMark)
		}
		return nfqueue.Accept()
	}
}

// hundredRules returns a rule file of a kind that a gateway might have, none of which
// matches the measured packets. With packets, five of the hundred look at what changes
// from packet to packet, so that no flow is ever decided.
func hundredRules(packets bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "default: accept\nrules:\n")
	n := 0
	add := func(format string, args ...any) {
		fmt.Fprintf(&b, "  - {name: rule %d, when: '%s', verdict: drop}\n", n, fmt.Sprintf(format, args...))
		n++
	}
	if packets {
		add(`ip.ttl < 2`)
		add(`tcp.syn && tcp.fin`)
		add(`ip.fragment && udp.dport == 53`)
		add(`udp.dport == 9 && ip.tos == 0xb8`)
		add(`flow.bytes > 1000000000000`)
	}
	for n < 100 {
		switch i := n; n % 5 {
		case 0:
			add(`tcp.dport == %d && ip.src in "10.%d.0.0/16"`, 1000+i, 100+i)
		case 1:
			add(`tls.sni.endsWith(".blocked%d.example")`, i)
		case 2:
			add(`http.host == "host%d.example" && http.path.startsWith("/admin")`, i)
		case 3:
			add(`dns.names.exists(n, n.endsWith(".bad%d.example"))`, i)
		case 4:
			add(`udp.dport in [%d, %d] && ip.dst in "192.0.2.%d/32"`, 2000+i, 3000+i, i)
		}
	}
	return b.String()
}
