package vmcore

import (
	"bytes"
	"strconv"
	"strings"
)

// VMCoreInfo is the kernel's description of itself for dump tools: lines of
// KEY=VALUE, addresses of symbols, and offsets and sizes of some structs
// (Documentation/admin-guide/kdump/vmcoreinfo.rst).
type VMCoreInfo struct {
	Raw string // as the kernel wrote it
	// Source says where it was found: "note", "qemu note", or
	// "memory scan at 0x…".
	Source string

	values map[string]string
}

// maxVMCoreInfo is the most that is believed to be VMCOREINFO. The kernel has
// one page for it.
const maxVMCoreInfo = 64 << 10

// parseVMCoreInfo splits the text into lines. What is no KEY=VALUE is skipped;
// of a key given twice the first counts, as it does for crash and makedumpfile.
func parseVMCoreInfo(text []byte, source string) *VMCoreInfo {
	text = text[:min(len(text), maxVMCoreInfo)]
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	v := &VMCoreInfo{Raw: string(text), Source: source, values: make(map[string]string)}
	for line := range strings.Lines(v.Raw) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if _, twice := v.values[key]; ok && !twice {
			v.values[key] = value
		}
	}
	return v
}

// Get returns the value of a whole key: Get("OSRELEASE"), Get("SYMBOL(_text)").
func (v *VMCoreInfo) Get(key string) (string, bool) {
	s, ok := v.values[key]
	return s, ok
}

// Symbol returns the virtual address of SYMBOL(name).
func (v *VMCoreInfo) Symbol(name string) (uint64, bool) {
	s, ok := v.values["SYMBOL("+name+")"]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 64)
	return n, err == nil
}

// Offset returns OFFSET(name), in bytes, for a name like "list_head.next".
func (v *VMCoreInfo) Offset(name string) (uint64, bool) { return v.unsigned("OFFSET", name) }

// SizeOf returns SIZE(name), in bytes.
func (v *VMCoreInfo) SizeOf(name string) (uint64, bool) { return v.unsigned("SIZE", name) }

// Length returns LENGTH(name), the number of elements of an array.
func (v *VMCoreInfo) Length(name string) (uint64, bool) { return v.unsigned("LENGTH", name) }

// Number returns NUMBER(name). The kernel prints most of them signed; an
// unsigned one above the int64 range, or one in hexadecimal (arm64's
// kimage_voffset), comes back as the int64 of the same 64 bits.
func (v *VMCoreInfo) Number(name string) (int64, bool) {
	s, ok := v.values["NUMBER("+name+")"]
	if !ok {
		return 0, false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	base := 10
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		s, base = hex, 16
	}
	n, err := strconv.ParseUint(s, base, 64)
	return int64(n), err == nil
}

func (v *VMCoreInfo) unsigned(kind, name string) (uint64, bool) {
	s, ok := v.values[kind+"("+name+")"]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// number returns a bare decimal value such as PAGESIZE's.
func (v *VMCoreInfo) number(key string) (uint64, bool) {
	n, err := strconv.ParseUint(v.values[key], 10, 64)
	return n, err == nil
}
