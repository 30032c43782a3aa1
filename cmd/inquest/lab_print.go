package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"inquest/lab"
)

// explanationLines is how much of the report on a dump a run shows.
const explanationLines = 14

// labSummary is what several runs came to.
type labSummary struct {
	Runs       int                   `json:"runs"`
	Expected   int                   `json:"expected"`
	Outcomes   map[lab.Outcome]int   `json:"outcomes"`
	Judgements map[lab.Judgement]int `json:"judgements"`
	Failed     int                   `json:"failed"`
	Seconds    [3]float64            `json:"seconds"` // the shortest, the median and the longest
}

func summarize(results []labResult) labSummary {
	s := labSummary{Runs: len(results), Outcomes: make(map[lab.Outcome]int), Judgements: make(map[lab.Judgement]int)}
	var seconds []float64
	for i := range results {
		r := &results[i]
		s.Judgements[r.Judgement]++
		if r.Error != "" {
			s.Failed++
			continue
		}
		s.Outcomes[r.Outcome]++
		if r.Expected {
			s.Expected++
		}
		seconds = append(seconds, r.Seconds)
	}
	if slices.Sort(seconds); len(seconds) > 0 {
		s.Seconds = [3]float64{seconds[0], seconds[len(seconds)/2], seconds[len(seconds)-1]}
	}
	return s
}

// print prints what came of the runs.
func (r *labRun) print(results []labResult) error {
	summary := summarize(results)
	if r.json {
		return printJSON(r.io, map[string]any{"runs": results, "summary": summary})
	}
	if len(results) == 1 {
		r.printRun(&results[0])
		return nil
	}
	for i := range results {
		r.printLine(&results[i])
	}
	fmt.Fprintf(r.io.out, "%s: %s; %d as expected; Inquest %s; %.1f to %.1f s, half of them below %.1f s\n",
		plural(summary.Runs, "run"), counts(summary.Outcomes, summary.Failed), summary.Expected,
		counts(summary.Judgements, 0), summary.Seconds[0], summary.Seconds[2], summary.Seconds[1])
	return nil
}

// counts is "panic 99, hung 1".
func counts[K ~string](of map[K]int, failed int) string {
	var words []string
	for _, key := range slices.Sorted(maps.Keys(of)) {
		words = append(words, fmt.Sprintf("%s %d", key, of[key]))
	}
	if failed > 0 {
		words = append(words, fmt.Sprintf("failed %d", failed))
	}
	return strings.Join(words, ", ")
}

// printLine prints one run of many.
func (r *labRun) printLine(l *labResult) {
	said := string(l.Outcome)
	if l.Error != "" {
		said, _, _ = strings.Cut(l.Error, "\n")
	}
	if l.Answer != nil {
		said += fmt.Sprintf(", Inquest: %s (%s)", clean(brief(l.Answer)), l.Judgement)
	}
	fmt.Fprintf(r.io.out, "%s  %s\n", l.Dir, said)
}

// brief is an answer in a few words.
func brief(a *lab.Answer) string {
	switch {
	case a.Error != "":
		return a.Error
	case a.Class == "":
		return "nothing"
	}
	return a.Class
}

// printRun prints all about one run.
func (r *labRun) printRun(l *labResult) {
	t := terminalOf(r.io.out)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(r.io.out, "%s %s\n", t.paint(bold, fmt.Sprintf("%-9s", name)), fmt.Sprintf(format, args...))
	}
	line("scenario", "%s%s", l.Scenario, setText(l.Options))
	line("kernel", "%s, %s, %s, %d MiB", clean(l.Guest.Release), l.Accel, plural(l.CPUs, "CPU"), l.Memory)
	line("expected", "%s", truthText(l.Truth))
	outcome := t.paint(green, string(l.Outcome))
	if !l.Expected {
		outcome = t.paint(red, string(l.Outcome)+", which was not expected")
	}
	line("outcome", "%s, after %.1f s", outcome, l.Seconds)
	for _, f := range l.Facts {
		line("fact", "%s: %s", clean(f.Key), clean(factText(f.Value)))
	}
	for _, w := range l.Warnings {
		line("warned", "%s", clean(w))
	}
	for _, ran := range l.Ran {
		line("ran", "%s %s", clean(ran.Command), clean(ran.Error))
	}
	for _, d := range l.Dumps {
		line("dump", "%s, by %s (%s)", d.Path, d.By, d.How)
	}
	if l.Answer != nil {
		colour := map[lab.Judgement]string{lab.Right: green, lab.Wrong: red}[l.Judgement]
		judgement := string(l.Judgement)
		if l.Reason != "" {
			judgement += ": " + clean(l.Reason)
		}
		line("Inquest", "says %s: %s", clean(brief(l.Answer)), t.paint(colour, judgement))
		for _, text := range l.lines[:min(len(l.lines), explanationLines)] {
			fmt.Fprintln(r.io.out, strings.TrimRight("  | "+text, " "))
		}
		if len(l.Dumps) > 0 && len(l.lines) > explanationLines {
			fmt.Fprintf(r.io.out, "  | … inquest explain %s\n", l.Dumps[0].Path)
		}
	}
	line("folder", "%s", filepath.Clean(l.Dir))
}

// factText is a fact's value: text as it is, the rest as JSON has it.
func factText(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

// setText is " outcome=crash family=ipv6".
func setText(set map[string]string) string {
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(set)) {
		text.WriteString(" " + key + "=" + set[key])
	}
	return text.String()
}
