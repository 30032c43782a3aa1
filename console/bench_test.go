package console

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"testing"
)

// ordinary is a line of each kind that logs mostly consist of.
var ordinary = []string{
	"[%5d.%06d] usb 1-%d: new high-speed USB device number 4 using xhci_hcd\n",
	"[%5d.%06d] e1000e 0000:00:1f.6 eno1: NIC Link is Up 1000 Mbps Full Duplex, Flow Control: Rx/Tx %d\n",
	"[%5d.%06d] audit: type=1400 audit(1700000000.123:%d): apparmor=\"DENIED\" operation=\"open\" profile=\"snap.x\" name=\"/proc/1/stat\" pid=4711\n",
	"[%5d.%06d] IPv6: ADDRCONF(NETDEV_CHANGE): veth%d: link becomes ready\n",
	"Nov 22 18:00:%02d host kernel: [%5d.123456] EXT4-fs (sda%d): mounted filesystem with ordered data mode. Quota mode: none.\n",
	"[%5d.%06d][ T%04d] systemd[1]: Started Daily Cleanup of Temporary Directories.\n",
}

// oops is what a crash leaves in the log.
//
//go:embed testdata/oops.txt
var oops string

// plainLog is a log without trouble.
func plainLog(size int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, ordinary[i%len(ordinary)], i/100%100000, i%1000000, i%1000)
	}
	return b.Bytes()
}

// The speed that is promised, 100 MiB a second on one core, is for logs such as this.
func BenchmarkRead(b *testing.B) {
	log := plainLog(32 << 20)
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	for b.Loop() {
		if l, err := Read(bytes.NewReader(log)); err != nil || len(l.Reports) > 0 {
			b.Fatalf("%v, %d reports", err, len(l.Reports))
		}
	}
}

// A log that is nothing but crashes.
func BenchmarkReadReports(b *testing.B) {
	log := bytes.Repeat([]byte(oops), 32<<20/len(oops))
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	for b.Loop() {
		if l, err := Read(bytes.NewReader(log)); err != nil || len(l.Reports) == 0 {
			b.Fatalf("%v, %d reports", err, len(l.Reports))
		}
	}
}

// Memory does not grow with the length of a log, nor with the number of its reports.
func TestBounded(t *testing.T) {
	r := io.MultiReader(bytes.NewReader(plainLog(1<<20)), &repeat{[]byte(oops), 64 << 20, 0})
	l, err := Read(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Reports) != maxReports || l.Dropped == 0 {
		t.Errorf("%d reports kept and %d dropped, want %d kept", len(l.Reports), l.Dropped, maxReports)
	}
	if first, last := l.Reports[0], l.Reports[len(l.Reports)-1]; first.Opening.Number > 20000 || last.Opening.Number < l.Lines-100 {
		t.Errorf("kept lines %d to %d of %d, want the first and the last", first.Opening.Number, last.Opening.Number, l.Lines)
	}
}

// repeat reads the same text over and over.
type repeat struct {
	text    []byte
	left    int
	written int
}

func (r *repeat) Read(b []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	n := copy(b, r.text[r.written%len(r.text):])
	r.written += n
	r.left -= n
	return n, nil
}
