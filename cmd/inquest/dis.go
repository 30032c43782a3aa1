package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"inquest/explain"
	"inquest/kernel"
	"inquest/kernel/x86"
)

var disCommand = &command{
	name:  "dis",
	args:  "[FUNCTION | ADDRESS [COUNT]]",
	max:   2,
	short: "disassemble a function, or the code around an address",
	long: `Disassemble a whole function; or, of an address, the code around it, with the
instruction there marked; or COUNT instructions from there on. With no argument it
is the code around the instruction that the last oops in the log names.

The code is that in the dump's memory: alternatives, static keys and ftrace sites as they were patched.

What a call or jump goes to and what a rip-relative operand means stand beside it.
Bytes that are no known instruction are printed as .byte.`,
	example: `inquest dis vmcore
inquest dis vmcore native_queued_spin_lock_slowpath
inquest dis vmcore ffffffffb036fcd3
inquest dis vmcore -r delay_tsc+0x23
inquest dis vmcore tcp_v4_rcv 20`,
	complete: completeSymbol,
	setup: func(f *pflag.FlagSet) runFunc {
		var d disassembler
		f.BoolVarP(&d.reverse, "reverse", "r", false, "from the function's start up to the address")
		f.BoolVarP(&d.forward, "forward", "f", false, "from the address to the function's end")
		f.BoolVarP(&d.bytes, "bytes", "b", false, "print the bytes of each instruction")
		return func(s *session, args []string) error {
			k, err := s.Kernel()
			if err != nil {
				return err
			}
			d.s, d.k = s, k
			if len(args) == 0 {
				rip, err := oopsRIP(k)
				if err != nil {
					return err
				}
				args = []string{rip}
			}
			at, err := parseAddr(k, args[0])
			if err != nil {
				return err
			}
			count := 0
			if len(args) > 1 {
				if count, err = parseCount(args[1]); err != nil {
					return s.usagef("%v", err)
				}
			}
			return d.run(at, count)
		}
	},
}

// oopsRIP returns where the last oops in the log was, as symbol+0xoffset.
func oopsRIP(k *kernel.Kernel) (string, error) {
	var log []kernel.Record
	for rec, err := range k.Log() {
		if err != nil {
			break
		}
		log = append(log, rec)
	}
	events := explain.Events(log)
	for _, e := range slices.Backward(events) {
		if e.RIP != "" {
			rip, _, _ := strings.Cut(e.RIP, "/")
			return rip, nil
		}
	}
	return "", errors.New("the log names no instruction: say which function or address")
}

const (
	around      = 8       // instructions shown on either side of an address
	maxFunction = 1 << 20 // bytes of one function
)

// disassembler is one run of the command.
type disassembler struct {
	s       *session
	k       *kernel.Kernel
	reverse bool
	forward bool
	bytes   bool
}

// insn is a decoded instruction, or bytes that are none.
type insn struct {
	x86.Insn
	at   kernel.Addr
	code []byte
	bad  bool
}

func (d *disassembler) run(at kernel.Addr, count int) error {
	sym, off, inSymbol := d.k.SymbolAt(at)
	start, end := at, at+x86.MaxInsn*kernel.Addr(max(count, 1))
	if inSymbol {
		start = sym.Addr
		if end = start + kernel.Addr(min(sym.Size, maxFunction)); sym.Size == 0 || at >= end {
			end = at + x86.MaxInsn*2*around
		}
	}
	if count > 0 && !d.reverse {
		// As many as were asked for, past the function's end if need be.
		end = max(end, at+x86.MaxInsn*kernel.Addr(count))
	}
	if !inSymbol && (d.reverse || d.forward) {
		return fmt.Errorf("%v lies in no function", at)
	}
	list, err := d.decode(start, end)
	if len(list) == 0 && start != at {
		// The start of the function may not be in the dump.
		list, err = d.decode(at, end)
	}
	if len(list) == 0 {
		return fmt.Errorf("read code: %w", err)
	}
	d.s.miss(err)
	here := position(list, at)
	if count == 0 && !d.reverse && !d.forward && here < len(list)-1 {
		list = trimPadding(list, here)
	}
	if list[here].at != at && inSymbol && !d.reverse {
		d.s.miss(fmt.Errorf("%v lies inside the instruction at %v", at, list[here].at))
	}
	switch {
	case d.reverse:
		list = list[:here+1]
		if count > 0 {
			list = list[max(0, len(list)-count):]
		}
	case count > 0:
		list = list[here:min(here+count, len(list))]
	case d.forward:
		list = list[here:]
	case off != 0 || !inSymbol:
		list = list[max(0, here-around):min(here+around+1, len(list))]
	}
	if d.s.json {
		return d.printJSON(list, at)
	}
	d.print(list, at, off != 0)
	d.s.missing()
	return nil
}

// decode decodes from start up to end, as far as memory can be read.
func (d *disassembler) decode(start, end kernel.Addr) ([]insn, error) {
	var list []insn
	var code []byte
	var readErr error
	for next := start; next < end; {
		n := min(end-next, 4096-next%4096)
		page := make([]byte, n)
		if readErr = d.k.Read(page, next); readErr != nil {
			break
		}
		code, next = append(code, page...), next+n
	}
	for at := start; len(code) > 0; {
		in, err := x86.Decode(code, uint64(at))
		i := insn{Insn: in, at: at}
		if err != nil {
			if len(code) < x86.MaxInsn && end != start+kernel.Addr(len(code)) && len(list) > 0 && readErr == nil {
				break // cut by end
			}
			i.bad, i.Len = true, 1
		}
		i.code = code[:i.Len]
		list = append(list, i)
		code, at = code[i.Len:], at+kernel.Addr(i.Len)
	}
	return list, readErr
}

// position finds the instruction at an address, or that it lies inside of.
func position(list []insn, at kernel.Addr) int {
	here := 0
	for i := range list {
		if list[i].at <= at {
			here = i
		}
	}
	return here
}

// trimPadding drops what fills the gap to the next function: int3 and nops,
// behind instruction keep.
func trimPadding(list []insn, keep int) []insn {
	for len(list) > keep+1 {
		last := list[len(list)-1]
		if last.bad || !isPadding(last.Text(nil)) {
			break
		}
		list = list[:len(list)-1]
	}
	return list
}

func isPadding(text string) bool {
	return text == "int3" || strings.Contains(text, "nop") || text == "xchg %ax,%ax"
}

func (d *disassembler) print(list []insn, at kernel.Addr, mark bool) {
	width := 0
	names := make([]string, len(list))
	for i := range list {
		names[i] = clean(d.k.Name(list[i].at))
		width = max(width, len(names[i]))
	}
	for i := range list {
		in := &list[i]
		lead := "   "
		asked := mark && at >= in.at && at < in.at+kernel.Addr(in.Len)
		if asked {
			lead = "=> "
		}
		line := fmt.Sprintf("%s%#x <%s>:%*s  ", lead, uint64(in.at), names[i], width-len(names[i]), "")
		if d.bytes {
			line += fmt.Sprintf("%-32s", fmt.Sprintf("% x", in.code))
		}
		text, note := d.text(in)
		line += text
		if asked {
			line = d.s.term.paint(bold, line)
		}
		if note != "" {
			line += "  " + d.s.term.paint(cyan, "# "+note)
		}
		d.s.printf("%s\n", line)
	}
}

// text returns an instruction and what its operand means.
func (d *disassembler) text(in *insn) (text, note string) {
	if in.bad {
		return fmt.Sprintf(".byte %#02x", in.code[0]), ""
	}
	text = columns(in.Text(nil))
	if to, ok := in.Target(); ok {
		if name := d.k.Name(kernel.Addr(to)); name != "" {
			return text + " <" + clean(name) + ">", ""
		}
	}
	if to, ok := in.RIPTarget(); ok {
		note = fmt.Sprintf("%#x", to)
		if name := d.dataName(in, kernel.Addr(to)); name != "" {
			note += " <" + clean(name) + ">"
		}
	} else if to, ok := in.Immediate(); ok {
		if name := d.k.Name(kernel.Addr(to)); name != "" {
			note = clean(name)
		}
	}
	return text, note
}

// columns puts the operands below each other, as objdump does.
func columns(text string) string {
	op, args, ok := strings.Cut(text, " ")
	if !ok || op == "lock" || strings.HasPrefix(op, "rep") {
		return text
	}
	return fmt.Sprintf("%-6s %s", op, args)
}

// dataName names the target of a rip-relative operand. Before 6.15 per-CPU
// symbols count from 0, and so do the operands that reach them through gs.
func (d *disassembler) dataName(in *insn, to kernel.Addr) string {
	if name := d.k.Name(to); name != "" || !strings.Contains(in.Text(nil), "%gs:") {
		return name
	}
	syms, err := d.k.Symbols()
	if err != nil {
		return ""
	}
	sym, ok := syms.Find(to)
	switch {
	case !ok:
		return ""
	case sym.Addr == to:
		return sym.Name + ", per CPU"
	}
	return fmt.Sprintf("%s+%#x, per CPU", sym.Name, uint64(to-sym.Addr))
}

type insnJSON struct {
	Address hex    `json:"address"`
	Symbol  string `json:"symbol"`
	Offset  uint64 `json:"offset"`
	Bytes   string `json:"bytes"`
	Text    string `json:"text"`
	Target  *hex   `json:"target,omitempty"` // of a call or jump, or of a rip-relative operand
	Name    string `json:"target_symbol,omitempty"`
	Asked   bool   `json:"asked,omitempty"` // the address asked for lies in it
}

func (d *disassembler) printJSON(list []insn, at kernel.Addr) error {
	out := []insnJSON{}
	for i := range list {
		in := &list[i]
		j := insnJSON{Address: hex(in.at), Bytes: fmt.Sprintf("%x", in.code), Asked: at >= in.at && at < in.at+kernel.Addr(in.Len)}
		if sym, off, ok := d.k.SymbolAt(in.at); ok {
			j.Symbol, j.Offset = sym.Name, off
		}
		if in.bad {
			j.Text = fmt.Sprintf(".byte %#02x", in.code[0])
		} else {
			j.Text = in.Text(nil)
			to, ok := in.Target()
			if !ok {
				to, ok = in.RIPTarget()
			}
			if ok {
				h := hex(to)
				j.Target, j.Name = &h, d.dataName(in, kernel.Addr(to))
			}
		}
		out = append(out, j)
	}
	return d.s.writeJSON(struct {
		Instructions []insnJSON `json:"instructions"`
		Missing      []string   `json:"missing,omitempty"`
	}{out, d.s.missing()})
}
