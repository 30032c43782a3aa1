package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCrashArgs(t *testing.T) {
	got := crashArgs([]string{"rd", "vmcore", "-8", "-16", "-x", "-32", "-64", "-128", "8"})
	want := []string{"rd", "vmcore", "--8", "--16", "-x", "--32", "--64", "-128", "8"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseLevels(t *testing.T) {
	for _, c := range []struct {
		list string
		want string // levels, as digits
	}{
		{"", "01234567"}, {"err", "3"}, {"3,warn", "34"}, {"err+", "0123"}, {"debug", "7"}, {" Crit ", "2"}, {"loud", ""}, {"8", ""},
	} {
		wanted, err := parseLevels(c.list)
		got := ""
		for i, on := range wanted {
			if on {
				got += string(rune('0' + i))
			}
		}
		if (err != nil) != (c.want == "") || err == nil && got != c.want {
			t.Errorf("parseLevels(%q) = %s, %v; want %s", c.list, got, err, c.want)
		}
	}
}

func TestClean(t *testing.T) {
	if got := clean("a\x1b[2Jb\tc\x9bd\u00e9\n"); got != "a·[2Jb\tc\ufffdd\u00e9·" {
		t.Errorf("got %q", got)
	}
}

func TestFormatHelpers(t *testing.T) {
	for got, want := range map[string]string{
		formatBytes(0):                                 "0 bytes",
		formatBytes(4096):                              "4.0 KiB",
		formatBytes(3 << 29):                           "1.5 GiB",
		formatUptime(61 * time.Second):                 "00:01:01",
		formatUptime(25*time.Hour + 30*time.Second):    "1 day, 01:00:30",
		formatUptime(400*24*time.Hour + 5*time.Minute): "400 days, 00:05:00",
		levelText(0):                                   "nothing was filtered",
		levelText(17):                                  "without zero, free pages",
		taintText(""):                                  "",
		taintText("D?"):                                "D? (died before: an oops or BUG)",
		callerName(0):                                  "", callerName(7): "T7", callerName(1<<31 | 3): "C3",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Progress shows up only after a second, and leaves nothing behind.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := &progress{w: &b, width: 60, since: time.Now()}
	p.report("scan", 1, 10)
	if b.Len() > 0 {
		t.Errorf("early: %q", b.String())
	}
	p.since = time.Now().Add(-2 * progressAfter)
	p.report("scan", 5, 10)
	if !strings.Contains(b.String(), "scan [####################....................]  50%") {
		t.Errorf("bar: %q", b.String())
	}
	b.Reset()
	p.report("scan", 6, 10)
	if b.Len() > 0 {
		t.Errorf("drawn twice within a moment: %q", b.String())
	}
	p.end()
	if strings.TrimSpace(b.String()) != "" {
		t.Errorf("left behind: %q", b.String())
	}
}
