package inspect

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"inquest/inspect/app"
	"inquest/inspect/flow"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// Hit is a packet of a capture and what the rules said of it. Its pointers are valid
// until the function that it was given to returns.
type Hit struct {
	// Frame is the packet's number in the capture, from 1, as tcpdump and Wireshark
	// count.
	Frame    int
	Time     time.Time
	Packet   *packet.Packet
	Flow     packet.Tuple // in the original direction
	Dir      flow.Dir
	Facts    *app.Facts // of the flow, after this packet
	Decision Decision
}

// Replayed sums up a replay.
type Replayed struct {
	Stats
	// Frames is how many there were, Skipped those that carry no IP, as ARP.
	Frames, Skipped int
}

// Replay judges the packets of a capture by a set of rules, as an Engine would have,
// and calls hit for each: a dry run. It reads pcap and pcapng, also gzipped, of the
// link types Ethernet (with VLAN tags), Linux cooked v1 and v2, null, loopback, raw
// and nflog. An error that hit returns ends it and is returned.
//
// The clock is that of the capture, so timeouts and rates are those of the time when
// it was taken. Nothing is known of devices, marks and users. Checksums count as
// verified: a capture made where packets are sent has them wrong, since it is the
// network card that fills them in. What the rules would have dropped is in the capture
// nevertheless; it and what followed is judged as it is.
func Replay(r io.Reader, set *rule.Set, cfg Config, hit func(Hit) error) (sum Replayed, err error) {
	capture, err := openCapture(r)
	if err != nil {
		return sum, fmt.Errorf("read capture: %w", err)
	}
	e := New(set, cfg)
	defer func() { sum.Stats = e.Stats() }()
	w := e.Worker()
	w.keep = true
	meta := &rule.Meta{Checksum: packet.ChecksumVerified}
	var start time.Time
	var now int64
	for {
		frame, info, link, err := capture()
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, fmt.Errorf("read frame %d: %w", sum.Frames+1, err)
		}
		sum.Frames++
		if sum.Frames == 1 {
			start = info.Timestamp
		}
		if _, ok := linkTypes[link]; !ok {
			return sum, fmt.Errorf("read frame %d: link type %d (%v) is none of those that carry IP here", sum.Frames, link, layers.LinkType(link))
		}
		data := networkHeader(link, frame)
		if data == nil {
			sum.Skipped++
			continue
		}
		now = max(now, info.Timestamp.Sub(start).Nanoseconds())
		d := w.Inspect(data, meta, now)
		if err := hit(Hit{
			Frame: sum.Frames, Time: info.Timestamp, Packet: &w.packet, Flow: w.tuple, Dir: w.dir, Facts: &w.facts, Decision: d,
		}); err != nil {
			return sum, err
		}
	}
}

// openCapture returns a function that reads the next frame.
func openCapture(r io.Reader) (func() ([]byte, gopacket.CaptureInfo, int, error), error) {
	b := bufio.NewReaderSize(r, 1<<16)
	magic, err := b.Peek(4)
	if err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		b = bufio.NewReaderSize(z, 1<<16)
		if magic, err = b.Peek(4); err != nil {
			return nil, fmt.Errorf("after decompression: %w", err)
		}
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("no pcap or pcapng file: %d bytes", len(magic))
		}
		return nil, err
	}
	if string(magic) == "\x0a\x0d\x0d\x0a" {
		ng, err := pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, err
		}
		return func() ([]byte, gopacket.CaptureInfo, int, error) {
			data, info, err := ng.ZeroCopyReadPacketData()
			link := -1
			if len(info.AncillaryData) > 0 {
				if l, ok := info.AncillaryData[0].(layers.LinkType); ok {
					link = int(l)
				}
			}
			return data, info, link, err
		}, nil
	}
	old, err := pcapgo.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("no pcap or pcapng file: %w", err)
	}
	return func() ([]byte, gopacket.CaptureInfo, int, error) {
		data, info, err := old.ZeroCopyReadPacketData()
		return data, info, int(old.LinkType()), err
	}, nil
}
