package vmcore

import (
	"slices"
	"testing"
)

// TestRecord reads two pages, one of them before the recording began.
func TestRecord(t *testing.T) {
	spec := kdumpSpec{maxPFN: 8, pages: map[uint64][]byte{1: testPage(1), 2: testPage(2), 5: testPage(5)}}
	d := mustOpen(t, spec.build())
	if _, err := d.Page(5 * 4096); err != nil {
		t.Fatal(err)
	}
	r := d.Record()
	var b [8]byte
	for _, addr := range []PhysAddr{5 * 4096, 1*4096 + 8, 1 * 4096, 3 * 4096} {
		d.ReadPhys(b[:], addr) // page 3 is not in the dump
	}
	if got, want := slices.Collect(r.Pages()), []uint64{1, 5}; !slices.Equal(got, want) {
		t.Errorf("recorded pages %v, want %v", got, want)
	}
}
