package stack

import (
	"encoding/binary"
	"testing"
)

// entry encodes an orc_entry with its third word given.
func entry(sp, bp int16, word uint16) []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(sp))
	b = binary.LittleEndian.AppendUint16(b, uint16(bp))
	return binary.LittleEndian.AppendUint16(b, word)
}

func TestDecodeORC(t *testing.T) {
	old := orcFormat{typeShift: 8, typeBits: 2, endShift: 10, hasEnd: true, regs: &oldNumbering}    // 4.14 to 6.2
	signal := orcFormat{typeShift: 8, typeBits: 2, endShift: 11, hasEnd: true, regs: &oldNumbering} // 6.3
	wide := orcFormat{typeShift: 8, typeBits: 3, regs: &oldNumbering}                               // 6.4 on
	renumbered := orcFormat{typeShift: 8, typeBits: 3, regs: &newNumbering}                         // 7.0 on
	tests := []struct {
		name   string
		format orcFormat
		sp, bp int16
		word   uint16
		want   orcEntry
	}{
		{"call, old", old, 16, -16, 5 | 1<<4 | 0<<8, orcEntry{16, -16, orcSP, orcPrevSP, typeCall}},
		{"regs, old", old, 0, 0, 5 | 1<<8, orcEntry{0, 0, orcSP, orcUndefined, typeRegs}},
		{"partial regs, old", old, 8, 0, 5 | 2<<8, orcEntry{8, 0, orcSP, orcUndefined, typeRegsPartial}},
		{"end, old", old, 0, 0, 1 << 10, orcEntry{0, 0, orcUndefined, orcUndefined, typeEnd}},
		{"end, 6.3", signal, 0, 0, 1 << 11, orcEntry{0, 0, orcUndefined, orcUndefined, typeEnd}},
		{"undefined, old", old, 0, 0, 0, orcEntry{0, 0, orcUndefined, orcUndefined, typeUndefined}},
		{"call, 6.4", wide, 8, 0, 5 | 2<<8, orcEntry{8, 0, orcSP, orcUndefined, typeCall}},
		{"end, 6.4", wide, 0, 0, 1 << 8, orcEntry{0, 0, orcUndefined, orcUndefined, typeEnd}},
		{"undefined, 6.4", wide, 0, 0, 0, orcEntry{0, 0, orcUndefined, orcUndefined, typeUndefined}},
		{"regs with the signal bit, 6.4", wide, 0, 0, 4 | 3<<8 | 1<<11, orcEntry{0, 0, orcBP, orcUndefined, typeRegs}},
		{"no such type, 6.4", wide, 0, 0, 5 | 7<<8, orcEntry{0, 0, orcSP, orcUndefined, typeUndefined}},
		{"call, 7.0", renumbered, 16, -16, 3 | 8<<4 | 2<<8, orcEntry{16, -16, orcSP, orcPrevSP, typeCall}},
		{"indirect, 7.0", renumbered, -8, 0, 10 | 2<<8, orcEntry{-8, 0, orcBPIndirect, orcUndefined, typeCall}},
	}
	for _, tt := range tests {
		if got := tt.format.decode(entry(tt.sp, tt.bp, tt.word)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
