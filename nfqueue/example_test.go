package nfqueue_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"inquest/nfqueue"
)

// Four queues, fed by
//
//	nft add rule inet filter forward queue flags fanout,bypass to 0-3
//
// New connections to port 25 are held for a second, without delaying others.
func Example() {
	queues, err := nfqueue.Open(nfqueue.Config{
		Count:   4,
		GSO:     true,
		Default: nfqueue.Accept(),
		Event:   func(e nfqueue.Event) { log.Print(e) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err = queues.Serve(ctx, func(p *nfqueue.Packet) nfqueue.Verdict {
		if b := p.Payload; len(b) >= 40 && b[0] == 0x45 && b[9] == 6 && b[22] == 0 && b[23] == 25 && b[33]&0x12 == 2 {
			held := p.Hold()
			time.AfterFunc(time.Second, func() { held.Judge(nfqueue.Accept()) })
		}
		return nfqueue.Accept()
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range queues.Stats() {
		fmt.Println(s.Queue, s.Received, s.Dropped, s.Latency.Quantile(0.99))
	}
}

func ExampleVerdict() {
	for _, v := range []nfqueue.Verdict{
		nfqueue.Drop(),
		nfqueue.Accept().WithMark(1),
		nfqueue.Repeat().WithConnmarkBits(0x10, 0xf0),
		nfqueue.ToQueue(7).WithBypass(),
		nfqueue.Accept().WithPayload(make([]byte, 40)),
	} {
		fmt.Println(v)
	}
	// Output:
	// drop
	// accept mark 0x1
	// repeat ct mark 0x10/0xf0
	// queue 7 bypass
	// accept payload 40 bytes
}
