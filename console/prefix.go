package console

import (
	"bytes"
	"time"
)

// meta is what stood in front of a line: what dmesg, a syslog daemon, a journal, a
// netconsole receiver or a person who quoted the log put there.
type meta struct {
	time   time.Duration // since boot
	timed  bool
	level  int8 // 0 emergency … 7 debug; -1 when not said
	caller []byte
	source []byte // the machine: a host's name or an address
}

// prefixWindow is how far into a line a prefix may reach.
const prefixWindow = 128

// strip returns a line without what stood in front of it.
func strip(line []byte, m *meta) []byte {
	*m = meta{level: -1}
	line = bytes.TrimRight(line, "\r\n \t\x00")
	searched := false
	for range 8 {
		line = skipControl(line)
		if len(line) == 0 {
			return line
		}
		switch c := line[0]; {
		case c == '[':
			rest, ok := stripTime(line, m)
			if !ok {
				return line
			}
			line, searched = stripProgram(rest, m), true
		case c == '<':
			rest, ok := stripLevel(line, m)
			if !ok {
				return line
			}
			line = rest
		case c == '>':
			line = bytes.TrimPrefix(line[1:], []byte(" "))
		case searched || c == ' ' || c == '\t':
			// The log's own indentation; a time can still follow spaces in front of it.
			if t := bytes.TrimLeft(line, " \t"); !m.timed && !searched && len(t) > 0 && t[0] == '[' {
				if rest, ok := stripTime(t, m); ok {
					line, searched = rest, true
					continue
				}
			}
			return line
		case c >= '0' && c <= '9':
			if rest, ok := stripRecord(line, m); ok {
				return rest
			}
			fallthrough
		default:
			searched = true
			rest, ok := stripForeign(line, m)
			if !ok {
				return line
			}
			line = rest
		}
	}
	return line
}

// skipControl skips NULs, which files have after a power failure, and a terminal's
// colours.
func skipControl(line []byte) []byte {
	for len(line) > 0 && line[0] < ' ' && line[0] != '\t' {
		if line[0] == 0x1b && len(line) > 1 && line[1] == '[' {
			i := 2
			for i < len(line) && i < 16 && (line[i] >= '0' && line[i] <= '9' || line[i] == ';') {
				i++
			}
			line = line[min(i+1, len(line)):]
			continue
		}
		line = line[1:]
	}
	return line
}

// stripLevel strips "<4>", as in pstore and dmesg --raw.
func stripLevel(line []byte, m *meta) ([]byte, bool) {
	end := bytes.IndexByte(line[:min(len(line), 6)], '>')
	if end < 2 {
		return line, false
	}
	n := 0
	for _, c := range line[1:end] {
		if c < '0' || c > '9' {
			return line, false
		}
		n = n*10 + int(c-'0')
	}
	m.level = int8(n & 7)
	return line[end+1:], true
}

// stripTime strips a time in brackets, and the caller that may follow it
// (CONFIG_PRINTK_CALLER): "[   12.345678][ T1234] ".
func stripTime(line []byte, m *meta) ([]byte, bool) {
	end := bytes.IndexByte(line[:min(len(line), 40)], ']')
	if end < 4 {
		return line, false
	}
	in := line[1:end]
	if d, ok := seconds(in); ok {
		m.time, m.timed = d, true
	} else if !clock(in) {
		return line, false
	}
	line = line[end+1:]
	// The caller stands right behind; dmesg(1) has a space in between.
	at := 0
	if len(line) > 1 && line[0] == ' ' && line[1] == '[' {
		at = 1
	}
	if at < len(line) && line[at] == '[' {
		if c, rest, ok := callerID(line[at:]); ok {
			m.caller, line = c, rest
		}
	}
	return bytes.TrimPrefix(line, []byte(" ")), true
}

// seconds reads "   12.345678", which dmesg -d ends with " <    0.000012>" and some
// vendors with a CPU number.
func seconds(in []byte) (time.Duration, bool) {
	i := 0
	for i < len(in) && in[i] == ' ' {
		i++
	}
	var whole, frac, digits int64
	start := i
	for i < len(in) && in[i] >= '0' && in[i] <= '9' && i-start < 10 {
		whole = whole*10 + int64(in[i]-'0')
		i++
	}
	if i == start || i >= len(in) || in[i] != '.' {
		return 0, false
	}
	for i++; i < len(in) && in[i] >= '0' && in[i] <= '9' && digits < 9; i++ {
		frac = frac*10 + int64(in[i]-'0')
		digits++
	}
	if digits < 3 {
		return 0, false
	}
	if i < len(in) && in[i] != ' ' && in[i] != ',' && in[i] != '@' && in[i] != '/' {
		return 0, false
	}
	for ; digits < 9; digits++ {
		frac *= 10
	}
	if whole > 1<<32 {
		return 0, false
	}
	return time.Duration(whole)*time.Second + time.Duration(frac), true
}

// clock reports whether brackets hold a date or a time span: dmesg -T, -H, -d.
func clock(in []byte) bool {
	switch {
	case len(in) == 24 && in[3] == ' ' && in[13] == ':' && in[16] == ':': // Mon Jan  2 15:04:05 2006
		return digit(in[23])
	case len(in) == 11 && in[5] == ' ' && in[8] == ':': // Jan 2 15:04
		return digit(in[10])
	}
	in = bytes.TrimLeft(in, " ")
	return len(in) > 3 && (in[0] == '+' || in[0] == '<') && (digit(in[len(in)-1]) || in[len(in)-1] == '>') && bytes.IndexByte(in, '.') > 0
}

// callerID reads "[ T1234]" or "[    C1]".
func callerID(line []byte) (id, rest []byte, ok bool) {
	end := bytes.IndexByte(line[:min(len(line), 16)], ']')
	if end < 3 {
		return nil, line, false
	}
	id = bytes.TrimLeft(line[1:end], " ")
	if len(id) < 2 || id[0] != 'T' && id[0] != 'C' || !digit(id[1]) || !digit(id[len(id)-1]) {
		return nil, line, false
	}
	return id, line[end+1:], true
}

// stripRecord strips the head of a /dev/kmsg record, which extended netconsole sends
// too: "6,1234,5678901,-,caller=T12;text" (Documentation/ABI/testing/dev-kmsg).
func stripRecord(line []byte, m *meta) ([]byte, bool) {
	window := line[:min(len(line), 96)]
	end := bytes.IndexByte(window, ';')
	if end < 6 {
		return line, false
	}
	var field, n int64
	for i, c := range window[:end] {
		switch {
		case digit(c) && field < 3:
			if n = n*10 + int64(c-'0'); n > 1<<52 {
				return line, false
			}
		case c == ',' && field < 3:
			switch field {
			case 0:
				m.level = int8(n & 7)
			case 2:
				m.time, m.timed = time.Duration(n)*time.Microsecond, true
			}
			field, n = field+1, 0
		case field < 3 || i == 0:
			return line, false
		}
	}
	if field < 3 {
		return line, false
	}
	if i := bytes.Index(window[:end], []byte("caller=")); i >= 0 {
		id, _, _ := bytes.Cut(window[i+len("caller="):end], []byte(","))
		m.caller = id
	}
	return line[end+1:], true
}

var levelNames = [...]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}

// stripForeign strips what others than the kernel write in front of its lines: a date,
// a host, the program's name, an address, a level in words.
func stripForeign(line []byte, m *meta) ([]byte, bool) {
	window := line[:min(len(line), prefixWindow)]
	if line[0] == 'k' && bytes.HasPrefix(line, []byte("kern  :")) {
		level, rest, ok := bytes.Cut(line[len("kern  :"):], []byte(": "))
		level = bytes.TrimSpace(level)
		for i, name := range levelNames {
			if ok && string(level) == name {
				m.level = int8(i)
				return rest, true
			}
		}
	}
	if line[0] == 'k' && bytes.HasPrefix(line, []byte("kernel: ")) {
		return line[len("kernel: "):], true
	}
	if c := line[0]; digit(c) || c >= 'A' && c <= 'Z' || bytes.IndexByte(window, ' ') > 0 {
		if i := bytes.Index(window, []byte(" kernel:")); i > 0 {
			head := window[:i]
			if digit(line[0]) || bytes.IndexByte(head, ':') > 0 || bytes.IndexByte(head, ' ') < 0 {
				m.source = host(head)
				return bytes.TrimPrefix(line[i+len(" kernel:"):], []byte(" ")), true
			}
		}
	}
	// RFC 5424: "1 2006-01-02T15:04:05Z host kernel - - - text".
	if i := bytes.Index(window, []byte(" kernel - - - ")); i > 0 && digit(line[0]) {
		m.source = lastWord(window[:i])
		return line[i+len(" kernel - - - "):], true
	}
	// Whatever stands in front of a time in brackets.
	for at := 0; ; {
		i := bytes.IndexByte(window[at:], '[')
		if i < 0 {
			break
		}
		at += i
		if at+5 < len(line) && (line[at+1] == ' ' || digit(line[at+1])) {
			if rest, ok := stripTime(line[at:], m); ok && m.timed {
				m.source = address(window[:at])
				return rest, true
			}
		}
		at++
	}
	// The address of a netconsole sender.
	if digit(line[0]) {
		if a := address(window); a != nil && bytes.HasPrefix(line, a) {
			rest := bytes.TrimLeft(line[len(a):], "0123456789:")
			if len(rest) < len(line)-len(a) || len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
				m.source = a
				return bytes.TrimPrefix(rest, []byte(" ")), true
			}
		}
		if rest, ok := stripDate(line); ok {
			return rest, true
		}
	}
	// "Jan  2 15:04:05 " alone.
	if len(line) > 16 && line[3] == ' ' && line[6] == ' ' && line[9] == ':' && line[12] == ':' && line[15] == ' ' && digit(line[14]) {
		return line[16:], true
	}
	return line, false
}

// stripProgram strips "kernel: " and "host kernel: " behind a time, as journalctl -o
// short-monotonic has them.
func stripProgram(line []byte, m *meta) []byte {
	if rest, ok := bytes.CutPrefix(line, []byte("kernel: ")); ok {
		return rest
	}
	name, rest, ok := bytes.Cut(line[:min(len(line), prefixWindow)], []byte(" kernel: "))
	if !ok || len(name) == 0 || len(name) > 64 || bytes.ContainsAny(name, " :+[<") {
		return line
	}
	m.source = name
	return line[len(line)-len(rest)-max(0, len(line)-prefixWindow):]
}

// host is the host's name at the end of what a syslog daemon writes in front of the
// program's. Some have facility and level in between: "box kern.warn kernel:".
func host(head []byte) []byte {
	word := lastWord(head)
	if i := bytes.LastIndexByte(word, '.'); i >= 0 {
		level := word[i+1:]
		for _, name := range levelNames {
			if string(level) == name {
				return lastWord(head[:len(head)-len(word)])
			}
		}
	}
	return word
}

// stripDate strips "2006-01-02T15:04:05,123456+00:00 " (dmesg --time-format iso) and
// "2006-01-02 15:04:05 ", "2006/01/02 15:04:05 ".
func stripDate(line []byte) ([]byte, bool) {
	if len(line) < 20 || line[4] != '-' && line[4] != '/' || line[7] != line[4] || line[13] != ':' || line[16] != ':' {
		return line, false
	}
	_, rest, ok := bytes.Cut(line[11:], []byte(" "))
	return rest, ok
}

// address returns the IPv4 address in a prefix, nil when there is none.
func address(in []byte) []byte {
	for at := 0; at < len(in); at++ {
		if !digit(in[at]) || at > 0 && (digit(in[at-1]) || in[at-1] == '.') {
			continue
		}
		i, dots := at, 0
		for i < len(in) && i-at < 15 && (digit(in[i]) || in[i] == '.' && i > at && in[i-1] != '.') {
			if in[i] == '.' {
				dots++
			}
			i++
		}
		if dots == 3 && in[i-1] != '.' {
			return in[at:i]
		}
	}
	return nil
}

func lastWord(in []byte) []byte {
	in = bytes.TrimRight(in, " ")
	word := in[bytes.LastIndexByte(in, ' ')+1:]
	if bytes.IndexByte(word, ':') >= 0 { // a time
		return nil
	}
	return word
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
