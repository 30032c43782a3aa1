package vmcore

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestNotDump(t *testing.T) {
	user := elfSpec{notes: slices.Concat(prstatus(1, 0), note("CORE", 6, make([]byte, 32))), segs: []elfSeg{{virt: 0x400000, data: span(1, 1)}}}.build()
	be := elfSpec{data: 2, segs: []elfSeg{{data: span(1, 1)}}}.build()
	binary.BigEndian.PutUint16(be[16:], 4)
	kdump32 := make([]byte, 2*pg)
	copy(kdump32, "KDUMP   ")
	binary.LittleEndian.PutUint32(kdump32[hdrBlockSize32:], pg)
	bzImage := make([]byte, 0x400)
	copy(bzImage, "MZ")
	copy(bzImage[0x202:], "HdrS")
	tar := make([]byte, 512)
	copy(tar[257:], "ustar")
	tar[0] = 'x'
	for _, c := range []struct {
		name string
		file []byte
		say  string
	}{
		{"empty", nil, "an empty file"},
		{"zeros", make([]byte, 9000), "all zeros"},
		{"gzip", []byte("\x1f\x8b\x08\x00aaaaaaaaaaa"), "gzip-compressed"},
		{"xz", []byte("\xfd7zXZ\x00\x00\x04"), "xz-compressed"},
		{"zstd", []byte("\x28\xb5\x2f\xfd\x00\x00"), "zstd-compressed"},
		{"qcow2", []byte("QFI\xfb\x00\x00\x00\x03"), "qcow2"},
		{"vmss", []byte("\xd2\xbe\xd2\xbe\x08\x00\x00\x00"), "VMware suspended state"},
		{"windows", []byte("PAGEDU64\x0f\x00\x00\x00"), "Windows crash dump"},
		{"lime", []byte("EMiL\x01\x00\x00\x00"), "LiME"},
		{"bzImage", bzImage, "boot image"},
		{"tar", tar, "tar archive"},
		{"log", []byte("[    0.000000] Linux version 6.1.0\n[   12.3] Call Trace:\n"), "kernel log"},
		{"text", []byte("hällo, wörld\n"), "a text file"},
		{"html", []byte("<!DOCTYPE html><html>"), "HTML"},
		{"noise", noisePage(1), "of unknown format"},
		{"vmlinux", elfSpec{typ: 2}.build(), "ELF executable"},
		{"module", elfSpec{typ: 1}.build(), "ELF object file"},
		{"user core", user, "core of a user process"},
		{"ELF32", elfSpec{class: 1, segs: []elfSeg{{data: span(1, 1)}}}.build(), "32-bit ELF core"},
		{"big endian", be, "big-endian"},
		{"VirtualBox", elfSpec{notes: note("VBCORE", 0xb00, make([]byte, 8)), segs: []elfSeg{{data: span(1, 1)}}}.build(), "VirtualBox"},
		{"kdump of 32 bits", kdump32, "32-bit machine"},
		{"text in a flattened file", flatten([]flatRecord{{0, []byte("some text\n")}}, true), "a text file"},
	} {
		_, err := openBytes(c.file)
		var nd *NotDumpError
		if !errors.Is(err, ErrNotDump) || !errors.As(err, &nd) || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), "part 0") {
			t.Errorf("%s: error %v, want one that says %q", c.name, err, c.say)
		}
	}
	if _, err := NewReader(); !errors.Is(err, ErrNotDump) {
		t.Errorf("no parts: %v", err)
	}
	core := elfSpec{notes: infoNote, segs: []elfSeg{{data: span(1, 1)}}}.build()
	if _, err := openBytes(core, core); !errors.Is(err, ErrMissingPart) && !errors.Is(err, ErrNotDump) {
		t.Errorf("two ELF cores: %v", err)
	}
	if _, err := NewReader(Part{R: failingReader{}, Size: 100, Name: "disk"}); err == nil || !strings.Contains(err.Error(), "disk: no luck") {
		t.Errorf("a reader that fails: %v", err)
	}
}

type failingReader struct{}

func (failingReader) ReadAt([]byte, int64) (int, error) { return 0, errors.New("no luck") }
