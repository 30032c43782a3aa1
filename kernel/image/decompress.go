package image

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"

	"github.com/anchore/go-lzo"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxSize bounds what a file may become when it is decompressed. A kernel with nearly
// everything built in has some 200 MiB.
const maxSize = 512 << 20

// Errors that callers tell apart.
var (
	// ErrNotKernel means that the file is neither a bzImage nor a vmlinux.
	ErrNotKernel = errors.New("not a Linux kernel")
	// ErrCorrupt means that compressed data, or an ELF file, is broken.
	ErrCorrupt = errors.New("damaged")
	// ErrTooLarge means that it would be larger than any kernel.
	ErrTooLarge = errors.New("larger than a kernel can be")
)

// compressions are the formats that the kernel's build offers (init/Kconfig) and modules
// come in, by how they begin. What follows the compressed data is not looked at.
var compressions = []struct {
	name, magic string
	decode      func(data []byte) ([]byte, error)
}{
	{"gzip", "\x1f\x8b", gunzip},
	{"xz", xzMagic, unxz},
	{"zstd", "\x28\xb5\x2f\xfd", unzstd},
	{"lz4", "\x02\x21\x4c\x18", unlz4},
	{"lzma", "\x5d\x00\x00", unlzma},
	{"lzo", "\x89LZO\x00\r\n\x1a\n", unlzo},
	{"bzip2", "BZh", bunzip2},
}

// Decompress returns what a file holds that is compressed in one of the ways of kernels
// and modules, and other files as they are.
func Decompress(data []byte) ([]byte, error) {
	for _, c := range compressions {
		if !bytes.HasPrefix(data, []byte(c.magic)) {
			continue
		}
		out, err := c.decode(data)
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", c.name, err)
		}
		return out, nil
	}
	return data, nil
}

func gunzip(data []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	r.Multistream(false)
	return readAll(r)
}

func bunzip2(data []byte) ([]byte, error) {
	out, err := readAll(bzip2.NewReader(bytes.NewReader(data)))
	if errors.Is(err, bzip2.StructuralError("bad magic value in continuation file")) {
		err = nil // in a bzImage the size follows
	}
	return out, err
}

func unzstd(data []byte) ([]byte, error) {
	r, err := zstd.NewReader(bytes.NewReader(oneFrame(data)), zstd.WithDecoderMaxMemory(maxSize), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readAll(r)
}

// oneFrame cuts what follows the first zstd frame: in a bzImage, the size of the
// kernel in four bytes (cmd_zstd22_with_size, scripts/Makefile.lib).
func oneFrame(data []byte) []byte {
	var h zstd.Header
	if h.Decode(data) != nil {
		return data
	}
	pos := h.HeaderSize
	for pos >= 0 && pos+3 <= len(data) {
		block := uint32(data[pos]) | uint32(data[pos+1])<<8 | uint32(data[pos+2])<<16
		size := int(block >> 3)
		if block>>1&3 == 1 { // RLE: one byte, however long
			size = 1
		}
		if pos += 3 + size; block&1 == 1 { // the last
			if h.HasCheckSum {
				pos += 4
			}
			return data[:min(pos, len(data))]
		}
	}
	return data
}

// readAll reads to the end, up to maxSize, or to an error.
func readAll(r io.Reader) ([]byte, error) {
	var out bytes.Buffer
	n, err := out.ReadFrom(io.LimitReader(r, maxSize+1))
	switch {
	case err != nil:
		return out.Bytes(), fmt.Errorf("%w: %w", ErrCorrupt, err)
	case n > maxSize:
		return nil, ErrTooLarge
	}
	return out.Bytes(), nil
}

// unlz4 reads the "legacy" frame, which `lz4 -l` writes: blocks, each preceded by its
// size. In a bzImage the size of the kernel follows; it has no block after it.
func unlz4(data []byte) ([]byte, error) {
	const most = 8 << 20 // LZ4_BLOCKSIZE_LEGACY
	var out []byte
	for data = data[4:]; len(data) > 4; {
		n := int(binary.LittleEndian.Uint32(data))
		if data = data[4:]; n > len(data) {
			return nil, fmt.Errorf("block of %d bytes, %d are left: %w", n, len(data), ErrCorrupt)
		}
		var err error
		if out, err = lz4Block(out, data[:n], len(out)+most); err != nil {
			return nil, err
		}
		if len(out) > maxSize {
			return nil, ErrTooLarge
		}
		data = data[n:]
	}
	return out, nil
}

// lz4Block appends what one block holds, so that out has no more than limit bytes.
// Matches reach no further back than the block's begin.
func lz4Block(out, in []byte, limit int) ([]byte, error) {
	begin := len(out)
	length := func(n int) int {
		for more := n == 15; more && len(in) > 0; {
			n += int(in[0])
			more = in[0] == 255
			in = in[1:]
		}
		return n
	}
	for len(in) > 0 {
		token := in[0]
		in = in[1:]
		n := length(int(token >> 4))
		if n > len(in) || len(out)+n > limit {
			return nil, fmt.Errorf("%d literals: %w", n, ErrCorrupt)
		}
		out, in = append(out, in[:n]...), in[n:]
		if len(in) == 0 {
			break // the last sequence has no match
		}
		if len(in) < 2 {
			return nil, ErrCorrupt
		}
		back := int(binary.LittleEndian.Uint16(in))
		in = in[2:]
		n = length(int(token&15)) + 4
		if back == 0 || back > len(out)-begin || len(out)+n > limit {
			return nil, fmt.Errorf("match of %d bytes, %d back: %w", n, back, ErrCorrupt)
		}
		out = appendMatch(out, back, n)
	}
	return out, nil
}

// appendMatch appends n bytes of out, from back bytes before its end. They may overlap
// what is appended.
func appendMatch(out []byte, back, n int) []byte {
	for n > 0 {
		from := out[len(out)-back:]
		from = from[:min(n, len(from))]
		out = append(out, from...)
		n -= len(from)
	}
	return out
}

// unlzo reads the format of lzop(1): a header, then blocks with their sizes.
func unlzo(data []byte) ([]byte, error) {
	const (
		adlerPlain, adlerPacked = 1 << 0, 1 << 1
		extra, crcPlain         = 1 << 6, 1 << 8
		crcPacked, filter       = 1 << 9, 1 << 11
	)
	in := bigEndian{data[9:]}
	version := in.uint(2)
	in.uint(2) // of the library
	if version >= 0x0940 {
		in.uint(2) // needed to extract
	}
	in.uint(1) // method
	if version >= 0x0940 {
		in.uint(1) // level
	}
	flags := in.uint(4)
	if flags&filter != 0 {
		in.uint(4)
	}
	in.uint(4) // mode
	in.uint(4) // time
	if version >= 0x0940 {
		in.uint(4) // time, upper half
	}
	in.bytes(in.uint(1)) // name
	in.uint(4)           // checksum of the header
	if flags&extra != 0 {
		in.bytes(in.uint(4) + 4)
	}
	var out []byte
	for {
		plain := in.uint(4)
		if plain == 0 {
			return out, nil
		}
		packed := in.uint(4)
		var sum int
		if flags&adlerPlain != 0 {
			sum = in.uint(4)
		}
		if flags&crcPlain != 0 {
			in.uint(4)
		}
		if packed < plain && flags&adlerPacked != 0 {
			in.uint(4)
		}
		if packed < plain && flags&crcPacked != 0 {
			in.uint(4)
		}
		block := in.bytes(packed)
		if block == nil || plain > 64<<20 || packed > plain {
			return nil, fmt.Errorf("block of %d bytes, from %d: %w", plain, packed, ErrCorrupt)
		}
		if len(out)+plain > maxSize {
			return nil, ErrTooLarge
		}
		if packed < plain {
			text := make([]byte, plain)
			n, err := lzo.Decompress(block, text)
			if err != nil || n != plain {
				return nil, fmt.Errorf("block of %d bytes: %w: %v", plain, ErrCorrupt, err)
			}
			block = text
		}
		if flags&adlerPlain != 0 && adler32.Checksum(block) != uint32(sum) {
			return nil, fmt.Errorf("checksum of a block of %d bytes: %w", plain, ErrCorrupt)
		}
		out = append(out, block...)
	}
}

// bigEndian reads numbers, and zeros past the end.
type bigEndian struct{ rest []byte }

// bytes returns the next n bytes, nil when there are fewer.
func (b *bigEndian) bytes(n int) []byte {
	if n < 0 || n > len(b.rest) {
		b.rest = nil
		return nil
	}
	p := b.rest[:n:n]
	b.rest = b.rest[n:]
	return p
}

func (b *bigEndian) uint(n int) int {
	v := 0
	for _, c := range b.bytes(n) {
		v = v<<8 | int(c)
	}
	return v
}
