package lab

import (
	"fmt"
	"strings"
)

// with is a setting of options, as "key=value key=value".
func with(text string) map[string]string {
	set := make(map[string]string)
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		set[key] = value
	}
	return set
}

func withAll(texts ...string) (sets []map[string]string) {
	for _, text := range texts {
		sets = append(sets, with(text))
	}
	return sets
}

// The settings of the case's matrix: each outcome once, and then one condition at a
// time changed, with a leak as what shows that the bug is there.
var (
	retransmitSets = withAll(
		"outcome=warning", "outcome=crash", "outcome=leak", "outcome=neighbour",
		"outcome=leak accept=no",
		"outcome=leak verdict=drop", "outcome=leak verdict=grow", "outcome=leak verdict=grow accept=no",
		"outcome=leak verdict=flush", "outcome=warning verdict=flush",
		"outcome=leak family=mapped", "outcome=leak family=ipv6",
		"outcome=leak path=veth", "outcome=leak path=bridge", "outcome=leak path=veth family=ipv6",
		"outcome=leak hook=postrouting", "outcome=leak hook=prerouting", "outcome=leak hook=input", "outcome=leak path=bridge hook=bridge",
		"outcome=leak conntrack=yes", "outcome=leak gso=yes",
		"outcome=leak bind=yes", "outcome=neighbour path=veth bind=yes",
	)
	expiredSets = withAll(
		"outcome=warning", "outcome=crash", "outcome=leak", "outcome=neighbour",
		"outcome=leak verdict=drop", "outcome=leak family=mapped", "outcome=leak family=ipv6",
		"outcome=leak path=veth", "outcome=leak hook=input", "outcome=leak conntrack=yes", "outcome=leak bind=yes",
	)
	stormSets = withAll("time=10s", "time=10s accept=spin", "time=10s delay=700ms", "time=10s path=veth", "accept=spin outcome=warning")
)

// reqskHappened says what a run shows.
func reqskHappened(r *Result) string {
	number := func(key string) int {
		n, ok := r.Fact(key).(float64) // by way of JSON
		if !ok {
			n, _ := r.Fact(key).(int)
			return n
		}
		return int(n)
	}
	var parts []string
	switch {
	case r.Outcome == Panicked && len(r.Warnings) > 0:
		parts = append(parts, "panic: "+strings.TrimSuffix(r.Warnings[0], "."))
	case r.Outcome != Alive && r.Outcome != Warned:
		parts = append(parts, string(r.Outcome))
	}
	if r.Outcome == Warned {
		parts = append(parts, "warning")
	}
	switch leaked, accepted := number("leaked"), number("accepted"); {
	case leaked > 0 && accepted > 0:
		parts = append(parts, fmt.Sprintf("%d leaked of %d connections", leaked, accepted))
	case leaked > 0:
		parts = append(parts, "leak")
	case accepted > 0:
		parts = append(parts, fmt.Sprintf("nothing in %d connections", accepted))
	}
	if fate, ok := r.Fact("neighbour_connection").(string); ok && fate != "accepted" {
		parts = append(parts, "the neighbour's connection is lost"+portChange(r))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, "; ")
}

// portChange says how a neighbour's port changed, if it did.
func portChange(r *Result) string {
	var ports []string
	for _, f := range r.Facts {
		if client, ok := f.Value.(string); ok && f.Key == "neighbour_client" {
			ports = append(ports, client[strings.LastIndexByte(client, ':')+1:])
		}
	}
	if len(ports) != 2 || ports[0] == ports[1] {
		return ""
	}
	return fmt.Sprintf(" (its port %s became %s)", ports[0], ports[1])
}

// happened is a table of what came of each setting, with a column for each kernel.
func (t *Table) happened() string {
	var kernels, rows []string
	cells := make(map[[2]string]*Cell)
	for _, c := range t.Cells {
		kernels, rows = appendNew(kernels, c.Kernel), appendNew(rows, c.name())
		cells[[2]string{c.name(), c.Kernel}] = c
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| scenario | %s |\n|%s\n", strings.Join(kernels, " | "), strings.Repeat(" --- |", len(kernels)+1))
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |", markdownCell(row))
		for _, k := range kernels {
			text := "-"
			if c := cells[[2]string{row, k}]; c != nil && c.Happened != "" {
				text = c.Happened
				if c.Outcome == Panicked && c.Answer != nil {
					text += " (explained: " + string(c.Judgement) + ")"
				}
			}
			fmt.Fprintf(&b, " %s |", markdownCell(text))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func appendNew(list []string, word string) []string {
	for _, w := range list {
		if w == word {
			return list
		}
	}
	return append(list, word)
}
