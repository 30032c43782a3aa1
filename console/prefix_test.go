package console

import (
	"strings"
	"testing"
	"time"
)

func TestStrip(t *testing.T) {
	const s, ms, us = time.Second, time.Millisecond, time.Microsecond
	tests := []struct {
		line, text     string
		time           time.Duration // -1: none
		level          int
		caller, source string
	}{
		{"usb 1-1: new device", "usb 1-1: new device", -1, -1, "", ""},
		{"[    1.234567] usb 1-1: new device", "usb 1-1: new device", s + 234567*us, -1, "", ""},
		{"[12345.000001]  foo+0x1/0x2", " foo+0x1/0x2", 12345*s + us, -1, "", ""},
		{"<4>[    1.500000] text", "text", 1500 * ms, 4, "", ""},
		{"<30>text", "text", -1, 6, "", ""},
		{"[    1.500000][ T1234] text", "text", 1500 * ms, -1, "T1234", ""},
		{"[    1.500000][    C1]  text", " text", 1500 * ms, -1, "C1", ""},
		{"[    1.500000] [  T1234] text", "text", 1500 * ms, -1, "T1234", ""},
		{"[Mon Jan  2 15:04:05 2006] text", "text", -1, -1, "", ""},
		{"[Jan 2 15:04] text", "text", -1, -1, "", ""},
		{"[  +0.000012] text", "text", -1, -1, "", ""},
		{"[    1.500000 <    0.000012>] text", "text", 1500 * ms, -1, "", ""},
		{"kern  :warn  : [    1.500000] text", "text", 1500 * ms, 4, "", ""},
		{"kern  :emerg : [Mon Jan  2 15:04:05 2006] text", "text", -1, 0, "", ""},
		{"2006-01-02T15:04:05,123456+00:00 text", "text", -1, -1, "", ""},
		{"2006/01/02 15:04:05 text", "text", -1, -1, "", ""},
		{"Jan  2 15:04:05 box kernel: [    1.500000] text", "text", 1500 * ms, -1, "", "box"},
		{"Jan 02 15:04:05 box kernel: text", "text", -1, -1, "", "box"},
		{"2006-01-02T15:04:05.123456+00:00 box kernel: [    1.500000] text", "text", 1500 * ms, -1, "", "box"},
		{"2006-01-02T15:04:05+0000 box kernel:  foo+0x1/0x2", " foo+0x1/0x2", -1, -1, "", "box"},
		{"<4>1 2006-01-02T15:04:05Z box kernel - - - text", "text", -1, 4, "", "box"},
		{"[    1.500000] box kernel: text", "text", 1500 * ms, -1, "", "box"},
		{"[    1.500000] kernel: text", "text", 1500 * ms, -1, "", ""},
		{"[    1.500000] box kernel: " + strings.Repeat("long ", 40), strings.TrimRight(strings.Repeat("long ", 40), " "), 1500 * ms, -1, "", "box"},
		{"[    1.500000] a b kernel: text", "a b kernel: text", 1500 * ms, -1, "", ""},
		{"Jan  2 15:04:05  text", " text", -1, -1, "", ""},
		{"Jan  2 15:04:05 box user.alert kernel: [    1.500000] text", "text", 1500 * ms, -1, "", "box"},
		{"июл 27 14:08:03 box kernel: text", "text", -1, -1, "", "box"},
		{"kernel: text", "text", -1, -1, "", ""},
		{"10.0.0.7 [    1.500000] text", "text", 1500 * ms, -1, "", "10.0.0.7"},
		{"10.0.0.7:6666 [    1.500000] text", "text", 1500 * ms, -1, "", "10.0.0.7"},
		{"10.0.0.7: text", "text", -1, -1, "", "10.0.0.7"},
		{"2006-01-02 15:04:05 10.0.0.7 [    1.500000] text", "text", 1500 * ms, -1, "", "10.0.0.7"},
		{"4,1234,1500000,-,caller=T12;text", "text", 1500 * ms, 4, "T12", ""},
		{"6,1234,1500000,c;text", "text", 1500 * ms, 6, "", ""},
		{"login: [    1.500000] text", "text", 1500 * ms, -1, "", ""},
		{"> [    1.500000] text", "text", 1500 * ms, -1, "", ""},
		{"> > text", "text", -1, -1, "", ""},
		{"\x1b[32m[    1.500000] \x1b[0mtext", "text", 1500 * ms, -1, "", ""},
		{"\x00\x00\x00[    1.500000] text\r", "text", 1500 * ms, -1, "", ""},
		{" [<ffffffff81000000>] foo+0x1/0x2", " [<ffffffff81000000>] foo+0x1/0x2", -1, -1, "", ""},
		{"[<ffffffff81000000>] foo+0x1/0x2", "[<ffffffff81000000>] foo+0x1/0x2", -1, -1, "", ""},
		{"[Hardware Error]: CPU 0: Machine Check", "[Hardware Error]: CPU 0: Machine Check", -1, -1, "", ""},
		{"<IRQ>", "<IRQ>", -1, -1, "", ""},
		{"", "", -1, -1, "", ""},
		{"[", "[", -1, -1, "", ""},
		{"[    1.500000]", "", 1500 * ms, -1, "", ""},
		{"[99999999999.500000] text", "[99999999999.500000] text", -1, -1, "", ""},
	}
	for _, tt := range tests {
		var m meta
		text := string(strip([]byte(tt.line), &m))
		at := time.Duration(-1)
		if m.timed {
			at = m.time
		}
		if text != tt.text || at != tt.time || int(m.level) != tt.level || string(m.caller) != tt.caller || string(m.source) != tt.source {
			t.Errorf("strip(%q)\n got %q time %v level %d caller %q source %q\nwant %q time %v level %d caller %q source %q", tt.line,
				text, at, m.level, m.caller, m.source, tt.text, tt.time, tt.level, tt.caller, tt.source)
		}
	}
}

// Stripping allocates nothing: it is done to every line.
func TestStripAllocates(t *testing.T) {
	line := []byte("Jan  2 15:04:05 box kernel: [    1.500000][ T1234] text")
	var m meta
	if n := testing.AllocsPerRun(100, func() { strip(line, &m) }); n > 0 {
		t.Errorf("%v allocations a line", n)
	}
}
