package explain

import (
	"strings"
	"testing"

	"inquest/kernel"
)

const kfence = `==================================================================
BUG: KFENCE: use-after-free read in widget_read+0x2f/0x60 [widget]

Use-after-free read at 0x00000000a1b2c3d4 (in kfence-#42):
 widget_read+0x2f/0x60 [widget]
 vfs_read+0xb2/0x360
 ksys_read+0x6f/0xf0

CPU: 1 UID: 0 PID: 77 Comm: cat Not tainted 6.12.0 #1
==================================================================
`

// What a checker reported right before the panic is the cause; the same long before is not.
func TestReported(t *testing.T) {
	log := func(between int) (records []kernel.Record) {
		for line := range strings.Lines(kfence) {
			records = append(records, kernel.Record{Text: strings.TrimRight(line, "\n")})
		}
		for range between {
			records = append(records, kernel.Record{Text: "eth0: link is up"})
		}
		return append(records, kernel.Record{Text: "Kernel panic - not syncing: KFENCE: panic_on_warn set ..."})
	}
	for _, tt := range []struct {
		between int
		crashed bool
		want    string
	}{
		{0, true, "use-after-free in widget_read"},
		{1000, true, ""},
		{1000, false, "use-after-free in widget_read"}, // it lives on: whatever it reported
	} {
		c := &Case{Log: log(tt.between)}
		if tt.crashed {
			c.Crash = &Crash{Panic: &Event{Kind: KindPanic, Record: len(c.Log) - 1}}
		} else {
			c.Log = c.Log[:len(c.Log)-1]
		}
		got := ""
		if f := Reported.Run(c); len(f) > 0 {
			got = f[0].Title
			if f[0].Class != UseAfterFree || f[0].Blame == nil || f[0].Blame.Function != "widget_read" {
				t.Errorf("%+v", f[0])
			}
		}
		if got != tt.want {
			t.Errorf("%d lines between, crashed %t: %q, want %q", tt.between, tt.crashed, got, tt.want)
		}
	}
}
