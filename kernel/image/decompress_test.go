package image

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/code, which the tools compressed")

// code is machine code of a kind: calls and jumps of a few functions, opcodes within
// operands of others, and what lies between.
func code() []byte {
	const size = 48 << 10
	var out []byte
	seed := uint32(1)
	random := func(n int) int {
		seed = seed*1664525 + 1013904223
		return int(seed>>8) % n
	}
	functions := []uint32{0, 0x100, 0x1234, 0xe8e8, 0xffe9e8, 0x01000000}
	for len(out) < size {
		switch random(6) {
		case 0, 1, 2:
			op := []byte{0xe8, 0xe9}[random(2)]
			to := functions[random(len(functions))] - uint32(len(out)+5)
			out = append(out, op, byte(to), byte(to>>8), byte(to>>16), byte(to>>24))
		case 3:
			for range random(7) {
				out = append(out, []byte{0xe8, 0xe9, 0x00, 0xff}[random(4)])
			}
		case 4:
			for range random(40) {
				out = append(out, byte(random(256)))
			}
		case 5:
			out = append(out, "push %rbp; mov %rsp,%rbp; sub $0x20,%rsp; "[random(20):]...)
		}
	}
	return out[:size]
}

// The files in testdata were made of testdata/code by the tools: xz --check=crc32 --x86
// --lzma2=dict=1MiB, xz, xz -F lzma (with and without a size), zstd, lz4 -l, gzip, bzip2.
func TestDecompress(t *testing.T) {
	want := code()
	if *update {
		if err := os.WriteFile("testdata/code", want, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob("testdata/code.*")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, path := range files {
		packed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decompress(packed)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, which differ at %d", path, len(got), differAt(got, want))
		}
		// In a bzImage the size follows what is compressed.
		if got, err := Decompress(append(packed, 0, 0xc0, 0, 0)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, with a size behind it: %d bytes, %v", path, len(got), err)
		}
		for _, n := range []int{7, 20, len(packed) / 2, len(packed) - 80} {
			if got, err := Decompress(packed[:n]); err == nil && len(got) >= len(want) {
				t.Errorf("%s: no error when cut after %d of %d bytes", path, n, len(packed))
			}
		}
		if filepath.Ext(path) == ".xz" || filepath.Ext(path) == ".gz" {
			broken := bytes.Clone(packed)
			broken[len(broken)/2] ^= 4
			if _, err := Decompress(broken); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: a flipped bit gives %v", path, err)
			}
		}
	}
}

func differAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// What is not compressed stays what it is.
func TestDecompressNothing(t *testing.T) {
	for _, s := range []string{"", "\x7fELF", "text"} {
		if got, err := Decompress([]byte(s)); err != nil || string(got) != s {
			t.Errorf("%q became %q, %v", s, got, err)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	files, _ := filepath.Glob("testdata/code.*")
	for _, path := range files {
		packed, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed[:min(len(packed), 2000)])
	}
	f.Add([]byte("\x89LZO\x00\r\n\x1a\n\x10\x30\x20\x80\x09\x40\x01\x05\x03\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		if out, err := Decompress(packed); err == nil && len(out) > maxSize {
			t.Errorf("%d bytes", len(out))
		}
	})
}

// Benchmark of the slowest format, at which a bzImage of Debian 11 takes most of the time.
func BenchmarkDecompress(b *testing.B) {
	for _, path := range []string{"testdata/code.x86.xz", "testdata/code.lz4"} {
		packed, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(filepath.Ext(path), func(b *testing.B) {
			b.SetBytes(int64(len(code())))
			for b.Loop() {
				if _, err := Decompress(packed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
