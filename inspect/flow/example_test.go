package flow_test

import (
	"fmt"
	"os"

	"inquest/inspect/flow"
	"inquest/inspect/packet"
)

func ExampleTable() {
	table := flow.NewTable(flow.Config[string]{MaxFlows: 100_000})
	var p packet.Packet
	p.Decode([]byte{ // UDP, 10.0.0.1:53 to 10.0.0.2:4000
		0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
		0, 53, 0x0f, 0xa0, 0, 8, 0, 0,
	})
	ref := table.Track(&p, 0)
	ref.Flow.Value = "what the caller knows of it"
	t := ref.Flow.Tuple()
	fmt.Println(ref.Created, ref.Dir, t.Src, t.SrcPort, ref.Flow.State())
	ref.Release()
	// Output: true original 10.0.0.1 53 unreplied
}

// print is a Reader.
type print struct{}

func (print) Data(b []byte) { os.Stdout.Write(b) }
func (print) Gap(n int)     { fmt.Printf("[%d bytes lost]", n) }

func ExampleStream() {
	var s flow.Stream
	l := &flow.Limits{Policy: flow.Linux}
	s.Add(flow.Segment{Seq: 99, SYN: true}, l, print{})
	s.Add(flow.Segment{Seq: 106, Data: []byte("world")}, l, print{})
	s.Add(flow.Segment{Seq: 100, Data: []byte("hello ")}, l, print{})
	s.Add(flow.Segment{Seq: 115, Data: []byte("!")}, l, print{})
	s.Ack(116, l, print{})
	// Output: hello world[4 bytes lost]!
}
