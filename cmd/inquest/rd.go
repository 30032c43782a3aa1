package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/vmcore"
)

var rdCommand = &command{
	name:  "rd",
	args:  "ADDRESS [COUNT]",
	min:   1,
	max:   2,
	short: "read memory as words, bytes, symbols or strings",
	long: `Print COUNT words of memory from an address on; one if no count is given. Lines in
pages that are not in the dump say so, and what follows them is printed all the same.`,
	example: `inquest rd vmcore jiffies
inquest rd vmcore ffff9d2b84c7a000 64
inquest rd vmcore -s sys_call_table 16
inquest rd vmcore -a linux_banner
inquest rd vmcore -32 -x ffff9d2b84c7a000 -e ffff9d2b84c7a100
inquest rd vmcore -p 1000 16`,
	complete: completeSymbol,
	setup: func(f *pflag.FlagSet) runFunc {
		var d wordDump
		var width [4]bool
		for i, name := range []string{"8", "16", "32", "64"} {
			f.BoolVar(&width[i], name, false, "print words of "+name+" bits; -"+name+" will do")
		}
		f.BoolVarP(&d.decimal, "signed", "d", false, "print signed decimal numbers")
		f.BoolVarP(&d.unsigned, "unsigned", "D", false, "print unsigned decimal numbers")
		f.BoolVarP(&d.symbols, "symbols", "s", false, "print words that are addresses of symbols as those")
		f.BoolVarP(&d.bare, "no-ascii", "x", false, "print no text beside the words")
		text := f.BoolP("ascii", "a", false, "print a string; COUNT limits its length")
		physical := f.BoolP("physical", "p", false, "the address is physical")
		pid := f.Int("pid", 0, "the address is in the user memory of the task `PID`")
		end := f.StringP("end", "e", "", "print up to this `ADDRESS`, instead of COUNT words")
		return func(s *session, args []string) error {
			d.s, d.size = s, 8
			for i, on := range width {
				if on {
					d.size = 1 << i
				}
			}
			if d.symbols {
				d.size = 8
			}
			at, err := d.open(args[0], *physical, *pid)
			if err != nil {
				return err
			}
			count := 1
			if *text {
				count = 4096
			}
			if len(args) > 1 {
				if count, err = parseCount(args[1]); err != nil {
					return s.usagef("%v", err)
				}
			}
			if *end != "" {
				stop, err := d.address(*end)
				if err != nil {
					return err
				}
				if stop <= at || stop-at > 1<<30 {
					return s.usagef("-e %s: the end must lie behind the start, by 1 GiB at most", *end)
				}
				count = int(stop-at+uint64(d.size)-1) / d.size
			}
			if *text {
				return d.text(at, count)
			}
			return d.run(at, count)
		}
	},
}

// wordDump prints memory as words.
type wordDump struct {
	s    *session
	k    *kernel.Kernel // nil for physical memory
	read func(p []byte, at kernel.Addr) error

	size              int // of a word in bytes
	decimal, unsigned bool
	symbols, bare     bool
}

// open prepares reading and returns where to begin.
func (d *wordDump) open(text string, physical bool, pid int) (uint64, error) {
	if physical {
		dump, err := d.s.Dump()
		if err != nil {
			return 0, err
		}
		d.read = func(p []byte, at kernel.Addr) error { return dump.ReadPhys(p, vmcore.PhysAddr(at)) }
		// Only what the kernel names needs the kernel.
		if at, err := strconv.ParseUint(trim0x(text), 16, 64); err == nil && !d.symbols {
			return at, nil
		}
	}
	var err error
	if d.k, err = d.s.Kernel(); err != nil {
		return 0, err
	}
	at, err := d.address(text)
	if err != nil || physical {
		return at, err
	}
	d.read = d.k.Read
	if pid != 0 {
		d.read, err = userMemory(d.k, pid)
	}
	return at, err
}

func (d *wordDump) address(text string) (uint64, error) {
	if d.k == nil {
		at, err := strconv.ParseUint(trim0x(text), 16, 64)
		if err != nil {
			return 0, d.s.usagef("%q is no physical address", text)
		}
		return at, nil
	}
	at, err := parseAddr(d.k, text)
	return uint64(at), err
}

// userMemory returns a reader of a task's user memory.
func userMemory(k *kernel.Kernel, pid int) (func([]byte, kernel.Addr) error, error) {
	pt, err := userPageTable(k, pid)
	if err != nil {
		return nil, err
	}
	return func(p []byte, at kernel.Addr) error {
		for len(p) > 0 {
			m, err := pt.Walk(uint64(at))
			if err != nil {
				return err
			}
			n := min(len(p), int(4096-at%4096))
			if err := k.Dump.ReadPhys(p[:n], m.Phys); err != nil {
				return err
			}
			p, at = p[n:], at+kernel.Addr(n)
		}
		return nil
	}, nil
}

// lineBytes is the memory on one line of output.
const lineBytes = 16

// run prints count words from an address on.
func (d *wordDump) run(at uint64, count int) error {
	var first error
	words := []wordJSON{}
	lines := 0
	gap := "" // what the last line said was missing
	for left := count * d.size; left > 0; {
		n := min(left, lineBytes)
		buf := make([]byte, n)
		if err := d.read(buf, kernel.Addr(at)); err != nil {
			// Words of 8 bytes that straddle pages do not come one by one.
			if first == nil {
				first = err
			}
			if text := gapReason(err); text != gap {
				gap = text
				if !d.s.json {
					d.s.printf("%016x:  %s\n", at, d.s.term.paint(dim, "("+gap+")"))
				}
			}
			// On to the next page.
			skip := min(left, int(4096-at%4096))
			at, left = at+uint64(skip), left-skip
			continue
		}
		gap = ""
		lines++
		if d.s.json {
			words = d.appendJSON(words, at, buf)
		} else {
			d.line(at, buf)
		}
		at, left = at+uint64(n), left-n
	}
	if lines == 0 {
		return first
	}
	if d.s.json {
		d.s.miss(first)
		return d.s.writeJSON(struct {
			WordBytes int        `json:"word_bytes"`
			Words     []wordJSON `json:"words"`
			Missing   []string   `json:"missing,omitempty"`
		}{d.size, words, d.s.missing()})
	}
	return nil
}

// gapReason says why memory is missing.
func gapReason(err error) string {
	for _, known := range []error{vmcore.ErrExcluded, vmcore.ErrAbsent, vmcore.ErrCorrupt, x86.ErrNotMapped, x86.ErrNonCanonical} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}

func (d *wordDump) word(b []byte) uint64 {
	switch d.size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func (d *wordDump) line(at uint64, buf []byte) {
	var b strings.Builder
	fmt.Fprintf(&b, "%016x: ", at)
	for i := 0; i+d.size <= len(buf); i += d.size {
		b.WriteByte(' ')
		b.WriteString(d.format(d.word(buf[i:])))
	}
	if !d.bare && !d.symbols && !d.decimal && !d.unsigned {
		full := (lineBytes / d.size) * (2*d.size + 1)
		used := len(buf) / d.size * (2*d.size + 1)
		fmt.Fprintf(&b, "%*s  ", 1+full-used, "")
		for _, c := range buf {
			if c < ' ' || c > '~' {
				c = '.'
			}
			b.WriteByte(c)
		}
	}
	d.s.printf("%s\n", strings.TrimRight(b.String(), " "))
}

// format writes one word in a column of its own.
func (d *wordDump) format(v uint64) string {
	switch {
	case d.symbols:
		name := d.name(v)
		if name == "" {
			name = fmt.Sprintf("%016x", v)
		}
		return fmt.Sprintf("%-36s", name)
	case d.decimal:
		shift := 64 - 8*d.size
		return fmt.Sprintf("%*d", []int{1: 4, 2: 6, 4: 11, 8: 20}[d.size], int64(v<<shift)>>shift)
	case d.unsigned:
		return fmt.Sprintf("%*d", []int{1: 3, 2: 5, 4: 10, 8: 20}[d.size], v)
	}
	return fmt.Sprintf("%0*x", 2*d.size, v)
}

// name returns the symbol that a word points into, "" when none.
func (d *wordDump) name(v uint64) string {
	if d.k == nil || d.size != 8 {
		return ""
	}
	return clean(d.k.Name(kernel.Addr(v)))
}

type wordJSON struct {
	Address hex    `json:"address"`
	Value   hex    `json:"value"`
	Symbol  string `json:"symbol,omitempty"`
}

func (d *wordDump) appendJSON(words []wordJSON, at uint64, buf []byte) []wordJSON {
	for i := 0; i+d.size <= len(buf); i += d.size {
		v := d.word(buf[i:])
		words = append(words, wordJSON{hex(at + uint64(i)), hex(v), d.name(v)})
	}
	return words
}

// text prints the string at an address, limit bytes at most, a line at a time.
func (d *wordDump) text(at uint64, limit int) error {
	var text []byte
	for next := at; len(text) < limit; {
		buf := make([]byte, min(limit-len(text), int(4096-next%4096)))
		if err := d.read(buf, kernel.Addr(next)); err != nil {
			if len(text) == 0 {
				return err
			}
			d.s.miss(err)
			break
		}
		if i := bytes.IndexByte(buf, 0); i >= 0 {
			text = append(text, buf[:i]...)
			break
		}
		text, next = append(text, buf...), next+uint64(len(buf))
	}
	if d.s.json {
		return d.s.writeJSON(struct {
			Address hex      `json:"address"`
			Text    string   `json:"text"`
			Missing []string `json:"missing,omitempty"`
		}{hex(at), string(text), d.s.missing()})
	}
	for line := range bytes.Lines(text) {
		d.s.printf("%016x:  %s\n", at, clean(strings.TrimSuffix(string(line), "\n")))
		at += uint64(len(line))
	}
	d.s.missing()
	return nil
}
