//go:build linux

package guest

import (
	"encoding/binary"
	"testing"
)

// note is an ELF note as /sys/kernel/notes has it.
func note(name string, typ uint32, desc []byte) []byte {
	var b []byte
	for _, n := range []uint32{uint32(len(name)), uint32(len(desc)), typ} {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	for _, part := range [][]byte{[]byte(name), desc} {
		b = append(b, part...)
		b = append(b, make([]byte, -len(part)&3)...)
	}
	return b
}

func TestBuildID(t *testing.T) {
	id := note("GNU\x00", 3, []byte{0xab, 0xcd, 0xef})
	xen := note("Xen\x00", 3, []byte{1, 2, 3, 4, 5})
	for _, tt := range []struct {
		name  string
		notes []byte
		want  string
	}{
		{"alone", id, "abcdef"},
		{"behind others", append(append(note("Linux\x00", 0x101, nil), xen...), id...), "abcdef"},
		{"none", xen, ""},
		{"empty", nil, ""},
		{"cut", id[:len(id)-4], ""},
		{"a length that is a lie", binary.NativeEndian.AppendUint32(nil, 1<<32-1), ""},
	} {
		if got := buildID(tt.notes); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzBuildID(f *testing.F) {
	f.Add(note("GNU\x00", 3, []byte{1, 2, 3}))
	f.Fuzz(func(t *testing.T, notes []byte) {
		if id := buildID(notes); len(id) > 2*len(notes) {
			t.Errorf("build ID of %d digits in %d bytes", len(id), len(notes))
		}
	})
}
