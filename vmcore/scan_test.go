package vmcore

import (
	"bytes"
	"errors"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestScan(t *testing.T) {
	spec := kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true), excluded: []uint64{3}}
	d := mustOpen(t, spec.build())
	var (
		mu   sync.Mutex
		got  = make(map[uint64][]byte)
		last int64
	)
	d.OnProgress = func(what string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if last = max(last, done); what != "look" || total != int64(len(spec.pages)) {
			t.Errorf("progress of %q: %d of %d", what, done, total)
		}
	}
	d.Scan("look", func(addr PhysAddr, page []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		got[uint64(addr)/pg] = bytes.Clone(page)
		return true
	})
	if !maps.EqualFunc(got, spec.pages, bytes.Equal) {
		t.Errorf("Scan gave %d pages, want %d, or gave them wrong", len(got), len(spec.pages))
	}
	if last != int64(len(spec.pages)) {
		t.Errorf("progress ended at %d of %d", last, len(spec.pages))
	}
	d.OnProgress = nil
	calls := 0
	d.Scan("stop", func(PhysAddr, []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		calls++
		return false
	})
	if calls == 0 || calls > runtime.GOMAXPROCS(0) {
		t.Errorf("Scan called f %d times after it said stop", calls)
	}
}

// infoDump is a dump without notes; its memory holds the given texts, and at
// 16 MiB + 0x5000 an init_uts_ns of the given release.
func infoDump(t *testing.T, release string, texts map[uint64]string) *Dump {
	spec := kdumpSpec{codec: flagZstd, maxPFN: someMaxPFN, pages: make(map[uint64][]byte)}
	for pfn := range uint64(40) {
		spec.pages[pfn] = make([]byte, pg)
	}
	for pfn := uint64(0x1000); pfn < 0x1010; pfn++ {
		spec.pages[pfn] = make([]byte, pg)
	}
	put := func(addr uint64, s string) {
		for i := range len(s) {
			spec.pages[(addr+uint64(i))/pg][(addr+uint64(i))%pg] = s[i]
		}
	}
	put(16<<20+0x5000, "\x01\x00\x00\x00Linux\x00")
	put(16<<20+0x5000+4+65, "host\x00")
	put(16<<20+0x5000+4+2*65, release+"\x00")
	put(16<<20+0x5000+4+3*65, "#1 SMP\x00")
	for addr, s := range texts {
		put(addr, s)
	}
	return mustOpen(t, spec.build())
}

func TestScanVMCoreInfo(t *testing.T) {
	own, guest := someInfo("5.14.0-own"), someInfo("5.14.0-guest")
	for _, c := range []struct {
		name  string
		texts map[uint64]string
		want  string // release
		at    string
	}{
		{"its own page", map[uint64]string{30 * pg: own}, "5.14.0-own", "memory scan at 0x1e000"},
		{"a guest's before it", map[uint64]string{10 * pg: guest, 30 * pg: own}, "5.14.0-own", "memory scan at 0x1e000"},
		{"the note's copy before it", map[uint64]string{10*pg + 24: own, 30 * pg: own}, "5.14.0-own", "memory scan at 0x1e000"},
		{"a static array over a page boundary", map[uint64]string{31*pg - 32: own}, "5.14.0-own", "memory scan at 0x1efe0"},
		{"only a guest's", map[uint64]string{10 * pg: guest}, "5.14.0-guest", "memory scan at 0xa000"},
		{"something shorter before it", map[uint64]string{10 * pg: "OSRELEASE=5.14.0-own\n", 11 * pg: own}, "5.14.0-own", "memory scan at 0xb000"},
		{"two in a page", map[uint64]string{10*pg + 8: "OSRELEASE=\x00", 10*pg + 64: own}, "5.14.0-own", "memory scan at 0xa040"},
	} {
		d := infoDump(t, "5.14.0-own", c.texts)
		v, err := d.VMCoreInfo()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if s, _ := v.Get("OSRELEASE"); s != c.want || v.Source != c.at || !strings.HasSuffix(v.Raw, "CRASHTIME=1700000000\n") {
			t.Errorf("%s: release %q from %q, text %q", c.name, s, v.Source, v.Raw)
		}
		if again, _ := d.VMCoreInfo(); again != v {
			t.Errorf("%s: searched twice", c.name)
		}
	}
	d := infoDump(t, "5.14.0-own", nil)
	if _, err := d.VMCoreInfo(); !errors.Is(err, ErrNoVMCoreInfo) {
		t.Errorf("no VMCOREINFO anywhere: %v", err)
	}
}

// TestScanVMCoreInfoFlood fills memory with texts that look right.
func TestScanVMCoreInfoFlood(t *testing.T) {
	text := []byte("OSRELEASE=x\nPAGESIZE=4096\n")
	page := bytes.Repeat(text, pg/len(text)+1)[:pg]
	spec := kdumpSpec{codec: flagZstd, maxPFN: someMaxPFN, pages: make(map[uint64][]byte)}
	for pfn := range uint64(200) {
		spec.pages[pfn] = page
	}
	d := mustOpen(t, spec.build())
	v, err := d.VMCoreInfo()
	if err != nil || v.Source != "memory scan at 0x0" {
		t.Errorf("VMCoreInfo: %+v, %v", v, err)
	}
}
