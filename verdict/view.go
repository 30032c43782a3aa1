package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// View is how a status is shown on a terminal.
type View struct {
	Width, Height int // in characters; nothing is wider or higher
	Colour        bool
}

// Colours of a terminal (ECMA-48, SGR).
const (
	sgrBold = "1"
	sgrDim  = "2"
	sgrRed  = "31"
)

// Render draws what happened between two statuses of one daemon as lines. Without an
// earlier one, or with one of another daemon, all that happened since the start is shown.
func (v View) Render(before, now *Status) []string {
	var since time.Duration
	if before == nil || before.PID != now.PID || !before.Started.Equal(now.Started) {
		before, since = &Status{}, now.Time.Sub(now.Started)
	} else {
		since = now.Time.Sub(before.Time)
	}
	p := picture{View: v, before: before, now: now, seconds: max(since.Seconds(), 1e-3)}
	p.head()
	p.packets()
	p.queues()
	p.rules()
	if len(p.lines) > v.Height {
		p.lines = p.lines[:v.Height]
	}
	return p.lines
}

// picture is a drawing in the making.
type picture struct {
	View
	before, now *Status
	seconds     float64 // between them
	lines       []string
}

// line adds a line, which is plain text, cut to the width.
func (p *picture) line(sgr, format string, args ...any) {
	text := printable(fmt.Sprintf(format, args...))
	if utf8.RuneCountInString(text) > p.Width {
		text = string([]rune(text)[:max(p.Width-1, 0)]) + "…"
	}
	text = strings.TrimRight(text, " ")
	if p.Colour && sgr != "" && text != "" {
		text = "\x1b[" + sgr + "m" + text + "\x1b[0m"
	}
	p.lines = append(p.lines, text)
}

// rate is how many happened in a second.
func (p *picture) rate(before, now uint64) float64 {
	return float64(now-min(before, now)) / p.seconds
}

func (p *picture) head() {
	s := p.now
	rules := map[Way]string{"": "not made by this daemon", ByQueue: "its own", ByXT: "its own (xt)"}[s.Installed]
	carved := "SYN/ACKs are queued"
	if s.CarveOut {
		carved = "SYN/ACKs kept out"
	}
	p.line(sgrBold, "inquest verdict   pid %d   up %s   fails %s   %s", s.PID, age(s.Time.Sub(s.Started)), s.Fail, carved)
	p.line("", "%s, loaded %s ago; rules in the kernel: %s", s.File, age(s.Time.Sub(s.Loaded)), rules)
	if s.ReloadError != "" {
		p.line(sgrRed, "NOT RELOADED: %s", s.ReloadError)
	}
	p.line("", "")
}

func (p *picture) packets() {
	a, b := p.before.Packets, p.now.Packets
	total := p.rate(a.Received, b.Received)
	share := func(before, now uint64) string {
		if total == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f%%", 100*p.rate(before, now)/total)
	}
	latency := since(p.now.Latency, p.before.Latency)
	p.line("", "packets  %9s/s  %10s/s   accept %s  drop %s  reject %s",
		number(total), bytesText(p.rate(a.Bytes, b.Bytes)), share(a.Accepted, b.Accepted), share(a.Dropped, b.Dropped), share(a.Rejected, b.Rejected))
	p.line("", "latency  p50 %-8s p99 %-8s p99.9 %-8s pending %s", duration(quantile(latency, .5)), duration(quantile(latency, .99)),
		duration(quantile(latency, .999)), share(a.Pending, b.Pending))
	f, g := p.before.Flows, p.now.Flows
	p.line("", "flows    %9s of %s   %s/s new   %s/s decided   %s", number(float64(g.Now)), number(float64(g.Max)),
		number(p.rate(f.Created, g.Created)), number(p.rate(f.Decided, g.Decided)), bytesText(float64(g.Memory)))
	bad := func(name string, before, now uint64) {
		if now > 0 {
			p.line(sgrRed, "trouble  %s %s/s, %s in all", name, number(p.rate(before, now)), number(float64(now)))
		}
	}
	bad("flows evicted", f.Evicted, g.Evicted)
	bad("payload forgotten for want of memory", f.Taken, g.Taken)
	bad("workers failed", a.Panics, b.Panics)
	bad("rules missing, packets came back", a.Returned, b.Returned)
	p.line("", "")
}

func (p *picture) queues() {
	p.line(sgrDim, "%-7s%12s%9s%10s%10s%10s%10s", "QUEUE", "PACKETS/S", "WAITING", "FULL/S", "LOST/S", "LATE/S", "REFUSED")
	const most = 8
	for i, q := range p.now.Queues {
		if i == most && len(p.now.Queues) > most+1 {
			p.line(sgrDim, "and %d more", len(p.now.Queues)-most)
			break
		}
		var old QueueStatus
		if j := slices.IndexFunc(p.before.Queues, func(o QueueStatus) bool { return o.Number == q.Number }); j >= 0 {
			old = p.before.Queues[j]
		}
		full, lost := p.rate(uint64(old.Full), uint64(q.Full)), p.rate(old.Lost, q.Lost)
		sgr := ""
		if full+lost > 0 {
			sgr = sgrRed
		}
		p.line(sgr, "%-7d%12s%9d%10s%10s%10s%10d", q.Number, number(p.rate(old.Received, q.Received)), q.Waiting,
			number(full), number(lost), number(p.rate(old.Flushed, q.Flushed)), q.Refused)
	}
	p.line("", "")
}

func (p *picture) rules() {
	type row struct {
		RuleStatus
		packets, flows float64 // a second
	}
	// A rule's counts begin anew when the rules are loaded.
	old := make(map[string]RuleStatus)
	if p.before.Loaded.Equal(p.now.Loaded) {
		for _, r := range p.before.Rules {
			old[r.Name] = r
		}
	}
	rows := make([]row, len(p.now.Rules))
	for i, r := range p.now.Rules {
		rows[i] = row{r, p.rate(old[r.Name].Packets, r.Packets), p.rate(old[r.Name].Flows, r.Flows)}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.packets, a.packets), cmp.Compare(b.Packets, a.Packets))
	})
	name := max(p.Width-57, 12)
	p.line(sgrDim, "%-*s %-12s%12s%10s%12s%10s", name, "RULE", "VERDICT", "PACKETS/S", "FLOWS/S", "PACKETS", "FLOWS")
	for _, r := range rows {
		p.line("", "%-*s %-12s%12s%10s%12s%10s", name, shorten(r.Name, name), shorten(r.Verdict, 11),
			number(r.packets), number(r.flows), number(float64(r.Packets)), number(float64(r.RuleStatus.Flows)))
	}
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// number is at most seven characters: 12.3, 1,234, 123,456, 12.3M, 1.2G.
func number(v float64) string {
	switch {
	case v >= 1e12:
		return fmt.Sprintf("%.1fT", v/1e12)
	case v >= 1e9:
		return fmt.Sprintf("%.1fG", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.1fM", v/1e6)
	case v >= 1e3:
		n := int64(v + .5)
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	case v == float64(int64(v)) || v >= 100:
		return strconv.FormatInt(int64(v+.5), 10)
	}
	return fmt.Sprintf("%.1f", v)
}

func bytesText(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for ; v >= 1000 && len(units) > 1; v /= 1024 {
		units = units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%.0f B", v)
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}

func duration(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d)
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.1f µs", float64(d)/1e3)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// age is a long time: 3d 04:05:06.
func age(d time.Duration) string {
	s := int64(d / time.Second)
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if s >= 86400 {
		text = fmt.Sprintf("%dd ", s/86400) + text
	}
	return text
}
