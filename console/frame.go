package console

import (
	"strconv"
	"strings"
)

// Frame is one entry of a call trace.
type Frame struct {
	Symbol string // as the kernel printed it, with what the compiler appended; "" when it had none
	Offset uint64
	Size   uint64 // of the function in bytes; 0 when not said
	Module string // "" for the kernel itself
	Addr   uint64 // 0 when not said
	Guess  bool   // marked with "?" or as unreliable: a leftover on the stack
	Inline bool   // added by a symbolizer
	Trap   bool   // an exception interrupted it
	File   string // added by a symbolizer: "net/core/sock.c:123"
}

// Name is the function without what the compiler appended to it: .isra.0, .cold …
func (f *Frame) Name() string { return Base(f.Symbol) }

// Base strips what a compiler appends to a function's name, and the dot that older
// ppc64 code symbols begin with.
func Base(symbol string) string {
	symbol = strings.TrimPrefix(symbol, ".")
	if strings.HasPrefix(symbol, "_R") {
		if name, ok := demangle(symbol); ok {
			return name
		}
	}
	if strings.HasPrefix(symbol, "<") { // Rust: <T as Trait>::f
		return symbol
	}
	name, _, _ := strings.Cut(symbol, ".")
	return name
}

// demangle reads the names out of Rust's v0 mangling (RFC 2603), without generics:
// _RNvMs3_NtCshgDM7dBCdno_11rust_binder7processNtB5_7Process10update_ref is
// rust_binder::process::Process::update_ref.
func demangle(symbol string) (string, bool) {
	var names []string
	for i := 2; i < len(symbol) && len(names) < 16; {
		switch c := symbol[i]; {
		case c == 's' || c == 'B': // a disambiguator or a back reference, up to "_"
			end := strings.IndexByte(symbol[i:], '_')
			if end < 0 {
				return "", false
			}
			i += end + 1
		case c >= '1' && c <= '9':
			n := 0
			for i < len(symbol) && digit(symbol[i]) && n < 512 {
				n = n*10 + int(symbol[i]-'0')
				i++
			}
			if i < len(symbol) && symbol[i] == '_' {
				i++
			}
			if n > len(symbol)-i {
				return "", false
			}
			names = append(names, symbol[i:i+n])
			i += n
		case c == '.' || c == '$':
			i = len(symbol)
		default:
			i++
		}
	}
	return strings.Join(names, "::"), len(names) > 0
}

// String is the frame as the kernel writes it, without the size.
func (f *Frame) String() string {
	s := f.Symbol
	switch {
	case s == "":
		s = "0x" + strconv.FormatUint(f.Addr, 16)
	case !f.Inline:
		s += "+0x" + strconv.FormatUint(f.Offset, 16)
	}
	if f.Module != "" {
		s += " [" + f.Module + "]"
	}
	return s
}

// ParseFrame reads a line of a call trace, as in
//
//	? tcp_v4_rcv+0x1a/0x30 [mod]
//	[<ffffffff8104a3c1>] warn_slowpath_common+0x81/0xc0
//	[c000000002b7fb10] [c0000000001b5a2c] do_exit+0x68/0xf0 (unreliable)
//	([<000000000012bb5e>] show_stack+0x5e/0x90)
//	tcp_v4_rcv+0x1a/0x30 net/ipv4/tcp_ipv4.c:1234
//	sock_put include/net/sock.h:1812 [inline]
func ParseFrame(line string) (Frame, bool) {
	var f Frame
	s := strings.TrimSpace(line)
	if strings.HasPrefix(s, "([<") {
		s, f.Guess = strings.TrimSuffix(s[1:], ")"), true
	}
	addressed := false
	for strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return f, false
		}
		addr, err := strconv.ParseUint(strings.Trim(s[1:end], "<>"), 16, 64)
		if err != nil {
			return f, false
		}
		f.Addr, addressed = addr, true
		s = strings.TrimLeft(s[end+1:], " ")
	}
	if rest, ok := strings.CutPrefix(s, "? "); ok {
		s, f.Guess = strings.TrimLeft(rest, " "), true
	}
	at := strings.Index(s, "+0x")
	if at <= 0 {
		return f, f.bare(s, addressed)
	}
	if !symbolic(s[:at]) {
		return f, false
	}
	f.Symbol = s[:at]
	s = s[at+3:]
	var ok bool
	if f.Offset, s, ok = hexPrefix(s); !ok {
		return f, false
	}
	if rest, found := strings.CutPrefix(s, "/0x"); found {
		if f.Size, s, ok = hexPrefix(rest); !ok {
			return f, false
		}
	}
	f.rest(s)
	return f, true
}

// bare is a frame without an offset: an address that has no symbol, or an inlined
// function that a symbolizer added.
func (f *Frame) bare(s string, addressed bool) bool {
	if s == "" {
		return addressed
	}
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		addr, rest, ok := hexPrefix(hex)
		if !ok || len(hex)-len(rest) < 8 || strings.TrimSpace(rest) != "" {
			return false
		}
		f.Addr = addr
		return true
	}
	body, ok := strings.CutSuffix(s, " [inline]")
	if !ok {
		return false
	}
	name, file, ok := strings.Cut(body, " ")
	if !ok || !symbolic(name) || strings.ContainsAny(file, " ") || !strings.Contains(file, ":") {
		return false
	}
	f.Symbol, f.File, f.Inline = name, file, true
	return true
}

// rest takes what follows the symbol: the module, with its build id since 5.14, marks,
// a symbolizer's file and line.
func (f *Frame) rest(s string) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		word, after, _ := strings.Cut(s, " ")
		switch {
		case word[0] == '[' && word != "[inline]":
			in, tail, ok := strings.Cut(s[1:], "]")
			if !ok {
				return
			}
			f.Module, _, _ = strings.Cut(in, " ")
			s = tail
			continue
		case word == "(unreliable)":
			f.Guess = true
		case strings.Contains(word, ":") && strings.ContainsAny(word, "/."):
			f.File = word
		}
		s = after
	}
}

// hexPrefix reads the hexadecimal number that a text begins with.
func hexPrefix(s string) (v uint64, rest string, ok bool) {
	n := 0
	for n < len(s) && n < 16 && hexDigit(s[n]) {
		n++
	}
	v, err := strconv.ParseUint(s[:n], 16, 64)
	return v, s[n:], err == nil
}

func hexDigit(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// symbolic reports whether a text can be a symbol. Rust's have brackets and colons, and
// spaces within the brackets.
func symbolic(s string) bool {
	if s == "" || len(s) > 512 {
		return false
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '<':
			depth++
		case c == '>':
			depth--
		case c == ' ':
			if depth <= 0 {
				return false
			}
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.' || c == '$' || c == ':' || c == '-' || c == '{' || c == '}' || c == '#' || c == '@' || c == '&' || c == ',':
		case c >= '0' && c <= '9':
			if i == 0 {
				return false
			}
		default:
			return false
		}
	}
	return s[0] != ':' && s[0] != '-' && s[0] != '#' && s[0] != ','
}
