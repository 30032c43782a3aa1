package inspect_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"inquest/inspect"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

// captured is a capture's worth of packets: a TLS connection that the rules drop, an
// HTTP request that they let pass, and a DNS query that they drop.
func captured(t testing.TB) [][]byte {
	tls := connect("10.0.0.1:40000", "192.0.2.1:443")
	http := connect("[2001:db8::1]:40001", "[2001:db8::2]:80")
	return slices.Concat(
		tls.open(), [][]byte{tls.say(clientHello(t, "x.ads.example")), tls.ack()},
		http.open(), [][]byte{http.say("GET / HTTP/1.1\r\nHost: www.example\r\n\r\n")},
		[][]byte{between("10.0.0.1:5353", "192.0.2.53:53").udp(dnsQuery(t, "bad.example."))},
	)
}

func frameTime(i int) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(i) * time.Millisecond).UTC()
}

// ethernet wraps a packet, in a VLAN when told.
func ethernet(p []byte, tags ...uint16) []byte {
	kind := uint16(packet.EtherIPv4)
	if p[0]>>4 == 6 {
		kind = packet.EtherIPv6
	}
	b := make([]byte, 12)
	for _, tag := range tags {
		b = binary.BigEndian.AppendUint16(b, 0x8100)
		b = binary.BigEndian.AppendUint16(b, tag)
	}
	return append(binary.BigEndian.AppendUint16(b, kind), p...)
}

func pcap(t testing.TB, link layers.LinkType, frames [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(1<<16, link); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: frameTime(i), CaptureLength: len(f), Length: len(f)}, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func pcapng(t testing.TB, frames [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{Name: "eth0", LinkType: layers.LinkTypeEthernet}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.AddInterface(pcapgo.NgInterface{Name: "tun0", LinkType: layers.LinkTypeRaw})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		ci := gopacket.CaptureInfo{Timestamp: frameTime(i), CaptureLength: len(f), Length: len(f)}
		if i%2 == 1 {
			ci.InterfaceIndex = second
		} else {
			f = ethernet(f)
			ci.CaptureLength, ci.Length = len(f), len(f)
		}
		if err := w.WritePacket(ci, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func wrap(frames [][]byte, f func(p []byte) []byte) (out [][]byte) {
	for _, p := range frames {
		out = append(out, f(p))
	}
	return out
}

func prefix(n int, set ...byte) func(p []byte) []byte {
	return func(p []byte) []byte { return append(append(make([]byte, n-len(set)), set...), p...) }
}

func TestReplay(t *testing.T) {
	frames := captured(t)
	family := func(p []byte) uint16 {
		if p[0]>>4 == 6 {
			return packet.EtherIPv6
		}
		return packet.EtherIPv4
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(pcap(t, layers.LinkTypeEthernet, wrap(frames, func(p []byte) []byte { return ethernet(p) })))
	z.Close()
	sll2 := func(p []byte) []byte {
		b := make([]byte, 20)
		binary.BigEndian.PutUint16(b, family(p))
		return append(b, p...)
	}
	nflog := func(p []byte) []byte {
		b := []byte{2, 0, 0, 0, 8, 0, 1, 0, 8, 0, 0, 3, 5, 0, 10, 0, 0, 0, 0, 0}
		b = binary.LittleEndian.AppendUint16(b, uint16(4+len(p)))
		return append(append(b, 9, 0), p...)
	}
	captures := map[string][]byte{
		"Ethernet":        pcap(t, layers.LinkTypeEthernet, wrap(frames, func(p []byte) []byte { return ethernet(p) })),
		"VLAN":            pcap(t, layers.LinkTypeEthernet, wrap(frames, func(p []byte) []byte { return ethernet(p, 5) })),
		"VLAN in VLAN":    pcap(t, layers.LinkTypeEthernet, wrap(frames, func(p []byte) []byte { return ethernet(p, 5, 6) })),
		"Linux cooked":    pcap(t, layers.LinkTypeLinuxSLL, wrap(frames, func(p []byte) []byte { return prefix(16, byte(family(p)>>8), byte(family(p)))(p) })),
		"Linux cooked v2": pcap(t, layers.LinkTypeLinuxSLL2, wrap(frames, sll2)),
		"raw":             pcap(t, layers.LinkTypeRaw, frames),
		"null":            pcap(t, layers.LinkTypeNull, wrap(frames, prefix(4, 2, 0, 0, 0))),
		"loopback":        pcap(t, layers.LinkTypeLoop, wrap(frames, prefix(4))),
		"nflog":           pcap(t, 239, wrap(frames, nflog)),
		"pcapng":          pcapng(t, frames),
		"gzip":            zipped.Bytes(),
	}
	want := []string{
		"accept ads pending", "accept ads pending", "accept ads pending", "drop ads decided", "drop ads decided cached",
		"accept ads pending", "accept ads pending", "accept ads pending", "accept",
		"drop bad name",
	}
	set := load(t, rules)
	for name, capture := range captures {
		t.Run(name, func(t *testing.T) {
			var got []string
			e := inspect.New(set, inspect.Config{})
			sum, err := inspect.Replay(bytes.NewReader(capture), set, inspect.Config{}, func(h inspect.Hit) error {
				got = append(got, judge(e, h.Decision))
				if h.Frame != len(got) || !h.Time.Equal(frameTime(len(got)-1)) {
					t.Errorf("frame %d at %v", h.Frame, h.Time)
				}
				switch h.Frame {
				case 4, 5:
					if h.Facts.TLS.SNI != "x.ads.example" || h.Flow.DstPort != 443 {
						t.Errorf("frame %d: %+v of %+v", h.Frame, h.Facts.TLS, h.Flow)
					}
				case 9:
					if h.Facts.HTTP.Host != "www.example" || h.Packet.Version != 6 {
						t.Errorf("%+v", h.Facts.HTTP)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("\n got %q\nwant %q", got, want)
			}
			if sum.Frames != len(frames) || sum.Skipped != 0 || sum.Packets != uint64(len(frames)) || sum.Verdicts[rule.Drop] != 3 {
				t.Errorf("%+v", sum)
			}
		})
	}
}

func TestReplayErrors(t *testing.T) {
	set := load(t, rules)
	good := pcap(t, layers.LinkTypeRaw, captured(t))
	stop := errors.New("stop")
	for name, tt := range map[string]struct {
		data   []byte
		hit    error
		want   string
		frames int
	}{
		"empty":       {nil, nil, "no pcap or pcapng file", 0},
		"text":        {[]byte("hello, world, this is no capture"), nil, "no pcap or pcapng file", 0},
		"cut":         {good[:len(good)-3], nil, "read frame 10", 9},
		"header only": {good[:24], nil, "", 0},
		"link type":   {pcap(t, layers.LinkTypeIEEE802_11, captured(t)), nil, "link type 105", 1},
		"stopped":     {good, stop, "stop", 1},
		"bad gzip":    {[]byte{0x1f, 0x8b, 9, 9, 9}, nil, "read capture", 0},
	} {
		sum, err := inspect.Replay(bytes.NewReader(tt.data), set, inspect.Config{}, func(inspect.Hit) error { return tt.hit })
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || sum.Frames != tt.frames {
			t.Errorf("%s: %v after %d frames, want %q after %d", name, err, sum.Frames, tt.want, tt.frames)
		}
		if tt.hit != nil && !errors.Is(err, tt.hit) {
			t.Errorf("%s: %v is not %v", name, err, tt.hit)
		}
	}
}

// TestReplaySkips: frames without IP are counted, and shown to no rule.
func TestReplaySkips(t *testing.T) {
	arp := append(make([]byte, 12), 8, 6, 0, 1)
	frames := [][]byte{arp, ethernet(captured(t)[0]), {1, 2, 3}, arp[:13], ethernet([]byte{0x45})}
	sum, err := inspect.Replay(bytes.NewReader(pcap(t, layers.LinkTypeEthernet, frames)), load(t, rules), inspect.Config{}, func(h inspect.Hit) error {
		if h.Frame != 2 && h.Frame != 5 {
			return fmt.Errorf("frame %d judged", h.Frame)
		}
		return nil
	})
	if err != nil || sum.Frames != 5 || sum.Skipped != 3 || sum.NotIP != 1 {
		t.Errorf("%v, %+v", err, sum)
	}
}

// FuzzReplay reads anything as a capture.
func FuzzReplay(f *testing.F) {
	frames := captured(f)
	f.Add(pcap(f, layers.LinkTypeEthernet, wrap(frames[:4], func(p []byte) []byte { return ethernet(p, 5) })))
	f.Add(pcapng(f, frames[:4]))
	f.Add(pcap(f, 239, [][]byte{{2, 0, 0, 0, 8, 0, 9, 0, 1, 2, 3, 4}}))
	f.Add(pcap(f, layers.LinkTypeLinuxSLL2, [][]byte{make([]byte, 30)}))
	set := load(f, rules)
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := 0
		sum, err := inspect.Replay(bytes.NewReader(b), set, inspect.Config{MaxFlows: 100, MaxMemory: 1 << 20, Shards: 1}, func(h inspect.Hit) error {
			if frames++; frames > 1000 {
				return io.EOF
			}
			return nil
		})
		if err == nil && sum.Frames != sum.Skipped+frames {
			t.Errorf("%d frames, %d skipped, %d judged", sum.Frames, sum.Skipped, frames)
		}
	})
}
