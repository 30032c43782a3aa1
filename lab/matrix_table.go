package lab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Table is what a matrix came to.
type Table struct {
	Cells []*Cell `json:"cells"`
}

// Totals counts the cells of one kernel by their judgement.
type Totals struct {
	Kernel  string            `json:"kernel"` // release
	Cells   int               `json:"cells"`
	Counts  map[Judgement]int `json:"counts"`
	Crashes int               `json:"crashes"`       // cells that ended as they ought to, and in a panic
	Right   int               `json:"crashes_right"` // of them
	Certain int               `json:"wrong_certain"` // wrong answers that were called certain
}

// certain is the confidence of a finding that leaves no doubt.
const certain = "certain"

// Totals returns the totals of each kernel.
func (t *Table) Totals() []Totals {
	var all []Totals
	for _, c := range t.Cells {
		i := slices.IndexFunc(all, func(t Totals) bool { return t.Kernel == c.Kernel })
		if i < 0 {
			i = len(all)
			all = append(all, Totals{Kernel: c.Kernel, Counts: make(map[Judgement]int)})
		}
		of := &all[i]
		of.Cells++
		of.Counts[cmp.Or(c.Judgement, NotJudged)]++
		if c.Outcome == Panicked && c.Answer != nil && slices.Contains([]Judgement{Right, Wrong, Silent}, c.Judgement) {
			of.Crashes++
			if c.Judgement == Right {
				of.Right++
			}
		}
		if c.Judgement == Wrong && c.Answer != nil && c.Answer.Confidence == certain {
			of.Certain++
		}
	}
	return all
}

// JSON writes the cells and the totals.
func (t *Table) JSON(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(struct {
		Totals []Totals `json:"totals"`
		Cells  []*Cell  `json:"cells"`
	}{t.Totals(), t.Cells})
}

// Markdown writes the totals, and a table for each kernel.
func (t *Table) Markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("| kernel | cells | crashes | of them right | right | wrong | wrong and certain | silent | unexpected | not there | failed |\n")
	b.WriteString("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n")
	for _, of := range t.Totals() {
		share := "-"
		if of.Crashes > 0 {
			share = fmt.Sprintf("%d (%.0f %%)", of.Right, 100*float64(of.Right)/float64(of.Crashes))
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %d | %d | %d | %d | %d | %d | %d |\n", of.Kernel, of.Cells, of.Crashes, share,
			of.Counts[Right], of.Counts[Wrong], of.Certain, of.Counts[Silent], of.Counts[Unexpected], of.Counts[NotOffered], of.Counts[Failed])
	}
	if slices.ContainsFunc(t.Cells, func(c *Cell) bool { return c.Happened != "" }) {
		b.WriteString("\n" + t.happened())
	}
	kernel := ""
	for _, c := range t.Cells {
		if c.Kernel != kernel {
			kernel = c.Kernel
			fmt.Fprintf(&b, "\n## %s\n\n| scenario | what it does | ended in | class | culprit | first finding | |\n| --- | --- | --- | --- | --- | --- | --- |\n", kernel)
		}
		finding := "-"
		if a := c.Answer; a != nil {
			switch {
			case a.Title != "":
				finding = fmt.Sprintf("%s, %s: %s", a.Class, a.Confidence, a.Title)
			case a.Error != "":
				finding = a.Error
			default:
				finding = "nothing"
			}
		}
		judgement := string(c.Judgement)
		if c.Reason != "" {
			judgement += ": " + c.Reason
		}
		row := []string{c.name(), cmp.Or(c.Truth.Why, "-"), cmp.Or(string(c.Outcome), "-"), cmp.Or(strings.Join(c.Truth.Classes, ", "), "-"),
			cmp.Or(strings.Join(c.Truth.Culprits, ", "), "-"), finding, judgement}
		for i := range row {
			row[i] = markdownCell(row[i])
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxMarkdownCell bounds what one cell of a table shows.
const maxMarkdownCell = 300

// markdownCell makes a text fit for a cell of a table: in one line, no end to the cell.
func markdownCell(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > maxMarkdownCell {
		text = string(runes[:maxMarkdownCell-1]) + "…"
	}
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "_", `\_`, "*", `\*`).Replace(text)
}
