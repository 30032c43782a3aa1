package vmcore

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/anchore/go-lzo"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Page flags of a kdump-compressed page descriptor; the header's status word
// uses the same bits (makedumpfile diskdump_mod.h).
const (
	flagZlib       = 0x01
	flagLZO        = 0x02
	flagSnappy     = 0x04
	flagIncomplete = 0x08 // header status only
	flagZstd       = 0x20

	flagCodecs = flagZlib | flagLZO | flagSnappy | flagZstd
)

// codecName names the compression of a page's or header's flags.
func codecName(flags uint32) string {
	switch flags & flagCodecs {
	case 0:
		return "none"
	case flagZlib:
		return "zlib"
	case flagLZO:
		return "lzo"
	case flagSnappy:
		return "snappy"
	case flagZstd:
		return "zstd"
	}
	return fmt.Sprintf("flags %#x", flags)
}

// decompress expands src into exactly the whole of dst.
func decompress(dst, src []byte, flags uint32) (err error) {
	// The decompressors are not ours and the data is hostile: one that panics
	// costs a page, not the program. A fault of the mapping passes through to
	// guard.
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); fault {
				panic(r)
			}
			err = corrupt("%s page: %v", codecName(flags), r)
		}
	}()
	var n int
	switch flags & flagCodecs {
	case 0:
		n = len(src)
		if n == len(dst) {
			copy(dst, src)
		}
	case flagZlib:
		n, err = inflate(dst, src)
	case flagLZO:
		n, err = lzo.Decompress(src, dst)
	case flagSnappy:
		if n, err = s2.DecodedLen(src); err == nil && n == len(dst) {
			_, err = s2.Decode(dst, src)
		}
	case flagZstd:
		n, err = unzstd(dst, src)
	default:
		return corrupt("page has unknown compression flags %#x", flags)
	}
	if err != nil {
		return corrupt("%s page: %v", codecName(flags), err)
	}
	if n != len(dst) {
		return corrupt("%s page holds %d bytes, not %d", codecName(flags), n, len(dst))
	}
	return nil
}

// inflater is a pooled zlib stream: window and tables cost far more to make
// than a page to inflate.
type inflater struct {
	src bytes.Reader
	zr  io.ReadCloser
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

func inflate(dst, src []byte) (n int, err error) {
	z := inflaters.Get().(*inflater)
	z.src.Reset(src)
	if z.zr == nil {
		z.zr, err = zlib.NewReader(&z.src)
	} else {
		err = z.zr.(zlib.Resetter).Reset(&z.src, nil)
	}
	if err != nil {
		z.zr = nil
		return 0, err
	}
	n, err = io.ReadFull(z.zr, dst)
	if err == nil {
		// The checksum is verified when the end is read.
		var over [1]byte
		var m int
		if m, err = z.zr.Read(over[:]); err == io.EOF {
			err = nil
		}
		n += m
	}
	z.src.Reset(nil)
	inflaters.Put(z)
	return n, err
}

var zstdDecoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(1<<20),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}}

func unzstd(dst, src []byte) (int, error) {
	d := zstdDecoders.Get().(*zstd.Decoder)
	out, err := d.DecodeAll(src, dst[:0:len(dst)])
	zstdDecoders.Put(d)
	return len(out), err
}
