package verdict

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// exampleStatuses are two looks at a busy daemon, a second apart.
func exampleStatuses() (before, now *Status) {
	started := time.Date(2026, 11, 19, 9, 30, 0, 0, time.UTC)
	at := started.Add(76*time.Hour + 12*time.Minute)
	before = &Status{
		Time: at, Started: started, PID: 812, File: "/etc/inquest/rules.yaml", Loaded: started.Add(70 * time.Hour),
		Fail: "open", Installed: ByQueue, CarveOut: true, Reloads: 3,
		Packets: Packets{Received: 90_000_000, Bytes: 70_000_000_000, Accepted: 88_000_000, Dropped: 1_500_000, Rejected: 500_000, Pending: 9_000_000},
		Queues:  []QueueStatus{{Number: 0, Received: 45_000_000}, {Number: 1, Received: 45_000_000, Full: 12}},
		Flows:   FlowStatus{Now: 18_211, Max: 1 << 20, Created: 5_000_000, Decided: 4_000_000, Memory: 11 << 20},
		Rules: []RuleStatus{
			{Name: "ssh from the office", Verdict: "accept", Packets: 40_000, Flows: 300},
			{Name: "no ads", Verdict: "reject", Packets: 500_000, Flows: 490_000},
			{Name: "no mining pools, wherever they are and whatever they are called", Verdict: "drop", Packets: 12, Flows: 12},
			{Name: "default", Verdict: "accept", Packets: 80_000_000, Flows: 3_500_000},
		},
		Latency: []LatencyCount{{16384, 80_000_000}, {65536, 9_000_000}, {1 << 20, 1_000_000}},
	}
	after := *before
	now = &after
	now.Time = at.Add(time.Second)
	now.Packets = Packets{Received: 90_123_456, Bytes: 70_098_000_000, Accepted: 88_120_000, Dropped: 1_502_456, Rejected: 501_000, Pending: 9_004_100}
	now.Queues = []QueueStatus{{Number: 0, Received: 45_061_000, Waiting: 3}, {Number: 1, Received: 45_062_456, Waiting: 117, Full: 112}}
	now.Flows = FlowStatus{Now: 18_500, Max: 1 << 20, Created: 5_001_400, Decided: 4_001_250, Memory: 12 << 20}
	now.Rules = []RuleStatus{
		{Name: "ssh from the office", Verdict: "accept", Packets: 40_001, Flows: 300},
		{Name: "no ads", Verdict: "reject", Packets: 501_000, Flows: 490_980},
		{Name: "no mining pools, wherever they are and whatever they are called", Verdict: "drop", Packets: 12, Flows: 12},
		{Name: "default", Verdict: "accept", Packets: 80_122_455, Flows: 3_500_270},
	}
	now.Latency = []LatencyCount{{16384, 80_100_000}, {65536, 9_022_000}, {1 << 20, 1_001_400}, {1 << 22, 56}}
	return before, now
}

func TestView(t *testing.T) {
	before, now := exampleStatuses()
	refused := *now
	refused.ReloadError = "rules.yaml:12:9: there is no variable tcp.dprt\x1b[2J"
	refused.Packets.Panics, refused.Flows.Evicted, refused.Packets.Returned = 2, 1000, 7
	var all strings.Builder
	for _, test := range []struct {
		name        string
		view        View
		before, now *Status
	}{
		{"a second", View{Width: 80, Height: 24}, before, now},
		{"the first look", View{Width: 80, Height: 24}, nil, now},
		{"trouble, wide", View{Width: 120, Height: 30}, before, &refused},
		{"small", View{Width: 40, Height: 6}, before, now},
	} {
		lines := test.view.Render(test.before, test.now)
		if len(lines) > test.view.Height {
			t.Errorf("%s: %d lines", test.name, len(lines))
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > test.view.Width {
				t.Errorf("%s: %d characters: %s", test.name, n, line)
			}
		}
		fmt.Fprintf(&all, "--- %s\n%s\n", test.name, strings.Join(lines, "\n"))
	}
	golden(t, "top.txt", all.String())
	if text := all.String(); strings.Contains(text, "\x1b") {
		t.Error("without colour there is an escape sequence")
	}
	coloured := strings.Join(View{Width: 80, Height: 24, Colour: true}.Render(before, &refused), "\n")
	if strings.Contains(coloured, "\x1b[2J") {
		t.Error("what a file says drives the terminal")
	}
}

func TestQuantile(t *testing.T) {
	list := []LatencyCount{{10, 50}, {20, 49}, {30, 1}}
	for q, want := range map[float64]time.Duration{0: 10, .5: 10, .51: 20, .99: 20, .995: 30, 1: 30} {
		if got := quantile(list, q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, .5); got != 0 {
		t.Errorf("quantile of nothing is %v", got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", .25: "0.2", 12.34: "12.3", 99.96: "100.0", 123.4: "123", 1234.5: "1,235", 999_999: "999,999", 12_345_678: "12.3M", 2e9: "2.0G", 3e13: "30.0T",
	} {
		if got := number(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}
