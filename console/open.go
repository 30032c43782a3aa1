package console

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// Bounds on what is looked at, and on pstore records, which have to be put in order.
const (
	sniffed   = 64 << 10
	maxPstore = 64 << 20
)

// IsText reports whether what a file begins with is text, rather than a dump: printable
// but for a terminal's controls and for NULs, which logs have after a power failure.
func IsText(head []byte) bool {
	var nul, bad int
	head = head[:min(len(head), sniffed)]
	for i := 0; i < len(head); i++ {
		switch c := head[i]; {
		case c == 0:
			nul++
		case c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != 0x1b && c != '\b' && c != '\f', c == 0x7f:
			bad++
		}
	}
	rest := len(head) - nul
	bad += invalid(head)
	return rest > 0 && nul <= rest && bad*20 <= rest
}

// invalid counts the bytes above 127 that are no UTF-8.
func invalid(b []byte) int {
	n := 0
	for len(b) > 0 {
		if b[0] < 0x80 {
			b = b[1:]
			continue
		}
		size := 2
		for size < 4 && size < len(b) && b[size]&0xc0 == 0x80 {
			size++
		}
		if b[0] < 0xc2 || b[0] > 0xf4 || len(b) < 2 || b[1]&0xc0 != 0x80 {
			n, size = n+1, 1
		}
		b = b[min(size, len(b)):]
	}
	return n
}

// ErrNotText is what a file is that [Open] does not take.
var ErrNotText = errors.New("not a text")

// Open opens a text that may be in several files, such as the parts of a pstore record,
// which it puts in order, and may be compressed with gzip or zstd. "-" is standard input,
// which is text whatever it holds, as pipes are. It is ErrNotText where a file is not.
func Open(paths ...string) (io.ReadCloser, error) {
	t := &text{}
	var parts []part
	for _, path := range paths {
		r, head, err := t.open(path)
		if err != nil {
			t.Close()
			return nil, err
		}
		p := part{r: r}
		if pstoreHead(head) {
			if p.data, err = io.ReadAll(io.LimitReader(r, maxPstore)); err != nil {
				t.Close()
				return nil, fmt.Errorf("read %s: %w", path, err)
			}
			parts = append(parts, records(p.data)...)
			continue
		}
		parts = append(parts, p)
	}
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.count, b.count), cmp.Compare(b.number, a.number))
	})
	var all []io.Reader
	for i, p := range parts {
		if p.data != nil {
			p.r = bytes.NewReader(p.data)
		}
		if i > 0 {
			all = append(all, bytes.NewReader([]byte("\n")))
		}
		all = append(all, p.r)
	}
	t.Reader = io.MultiReader(all...)
	return t, nil
}

// text is what Open returns.
type text struct {
	io.Reader
	files []io.Closer
}

func (t *text) Close() error {
	var first error
	for _, f := range t.files {
		first = cmp.Or(first, f.Close())
	}
	t.files = nil
	return first
}

// open opens one file, and returns what it begins with.
func (t *text) open(path string) (io.Reader, []byte, error) {
	var in io.Reader = os.Stdin
	sure := path == "-"
	if !sure {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		t.files = append(t.files, f)
		info, err := f.Stat()
		switch {
		case err != nil:
			return nil, nil, err
		case info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice|os.ModeSocket) != 0:
			sure = true
		case !info.Mode().IsRegular():
			return nil, nil, fmt.Errorf("%s: %w", path, ErrNotText)
		}
		in = f
	}
	br := bufio.NewReaderSize(in, sniffed)
	magic, _ := br.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, ErrNotText)
		}
		br = bufio.NewReaderSize(z, sniffed)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, ErrNotText)
		}
		t.files = append(t.files, z.IOReadCloser())
		br = bufio.NewReaderSize(z, sniffed)
	}
	if sure { // what comes later in a pipe is not waited for
		head, _ := br.Peek(64)
		return br, head, nil
	}
	head, _ := br.Peek(sniffed)
	if !IsText(head) {
		return nil, nil, fmt.Errorf("%s: %w", path, ErrNotText)
	}
	return br, head, nil
}

// part is a piece of the text: a file, or one part of a pstore record.
type part struct {
	r             io.Reader
	data          []byte
	count, number int // "Panic#count Partnumber", the highest number first
}

// pstoreReasons are what the head line of a pstore record begins with
// (kmsg_dump_reason_str() in kernel/printk).
var pstoreReasons = []string{"Panic#", "Oops#", "Emergency#", "Shutdown#", "Restart#", "Halt#", "Poweroff#", "Unknown#"}

// pstoreHead reports whether a text begins as pstore's dmesg records do (pstore_dump() in
// fs/pstore/platform.c); ramoops has a line "====1700000000.123456-D" in front.
func pstoreHead(head []byte) bool {
	head = head[:min(len(head), 160)]
	if bytes.HasPrefix(head, []byte("====")) {
		_, head, _ = bytes.Cut(head, []byte("\n"))
	}
	_, _, ok := partOf(head)
	return ok
}

// partOf reads "Panic#2 Part3".
func partOf(line []byte) (count, number int, ok bool) {
	for _, reason := range pstoreReasons {
		rest, found := bytes.CutPrefix(line, []byte(reason))
		if !found {
			continue
		}
		rest, _, _ = bytes.Cut(rest[:min(len(rest), 40)], []byte("\n"))
		c, n, found := bytes.Cut(bytes.TrimSpace(rest), []byte(" Part"))
		if !found {
			return 0, 0, false
		}
		var err, err2 error
		count, err = strconv.Atoi(string(c))
		number, err2 = strconv.Atoi(string(n))
		return count, number, err == nil && err2 == nil
	}
	return 0, 0, false
}

// records splits a file into the parts of pstore records that it holds.
func records(data []byte) []part {
	var parts []part
	start := 0
	cut := func(end int) {
		if end > start && len(parts) > 0 {
			parts[len(parts)-1].data = data[start:end]
		}
	}
	for at := 0; at < len(data); {
		end := bytes.IndexByte(data[at:], '\n')
		next := len(data)
		if end >= 0 {
			next = at + end + 1
		}
		if count, number, ok := partOf(data[at:next]); ok {
			cut(at)
			parts, start = append(parts, part{data: []byte{}, count: count, number: number}), next
		}
		at = next
	}
	cut(len(data))
	return parts
}
