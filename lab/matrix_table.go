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
	for _, of := range t.Totals() {
		t.kernelMarkdown(&b, of.Kernel)
	}
	t.signaturesMarkdown(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// kernelMarkdown writes the table of one kernel.
func (t *Table) kernelMarkdown(b *strings.Builder, kernel string) {
	fmt.Fprintf(b, "\n## %s\n\n| scenario | what it does | ended in | class | culprit | first finding | |\n| --- | --- | --- | --- | --- | --- | --- |\n", kernel)
	var missing []string
	for _, c := range t.Cells {
		switch {
		case c.Kernel != kernel:
			continue
		case c.Judgement == NotOffered:
			missing = append(missing, markdownCell(c.name()))
			continue
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
		judgement := string(cmp.Or(c.Judgement, "not run"))
		if c.Reason != "" {
			judgement += ": " + c.Reason
		}
		row := []string{c.name(), cmp.Or(c.Truth.Why, "-"), cmp.Or(string(c.Outcome), "-"), cmp.Or(strings.Join(c.Truth.Classes, ", "), "-"),
			cmp.Or(strings.Join(c.Truth.Culprits, ", "), "-"), finding, judgement}
		for i := range row {
			row[i] = markdownCell(row[i])
		}
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	if len(missing) > 0 {
		fmt.Fprintf(b, "\nNot there: %s.\n", strings.Join(missing, ", "))
	}
}

// SharedSignatures returns the scenarios whose crashes have one signature, where those
// are several; each group and the groups are in order.
func (t *Table) SharedSignatures() [][]string {
	groups := make(map[string][]string)
	for _, c := range t.Cells {
		if c.Answer == nil || c.Answer.Signature == "" {
			continue
		}
		if s := c.Answer.Signature; !slices.Contains(groups[s], c.Scenario) {
			groups[s] = append(groups[s], c.Scenario)
		}
	}
	var shared [][]string
	for _, group := range groups {
		if len(group) > 1 {
			slices.Sort(group)
			shared = append(shared, group)
		}
	}
	slices.SortFunc(shared, slices.Compare)
	return shared
}

// UnstableSignatures returns the scenarios that have not one signature in all of their
// crashes, in order.
func (t *Table) UnstableSignatures() []string {
	first := make(map[string]string)
	var unstable []string
	for _, c := range t.Cells {
		if c.Answer == nil || c.Answer.Signature == "" {
			continue
		}
		if s, ok := first[c.Scenario]; ok && s != c.Answer.Signature && !slices.Contains(unstable, c.Scenario) {
			unstable = append(unstable, c.Scenario)
		} else if !ok {
			first[c.Scenario] = c.Answer.Signature
		}
	}
	slices.Sort(unstable)
	return unstable
}

func (t *Table) signaturesMarkdown(b *strings.Builder) {
	if !slices.ContainsFunc(t.Cells, func(c *Cell) bool { return c.Answer != nil && c.Answer.Signature != "" }) {
		return
	}
	b.WriteString("\n## Signatures\n\n")
	shared, unstable := t.SharedSignatures(), t.UnstableSignatures()
	for _, group := range shared {
		fmt.Fprintf(b, "- One signature: %s\n", markdownCell(strings.Join(group, ", ")))
	}
	if len(unstable) > 0 {
		fmt.Fprintf(b, "- Not the same signature on all kernels: %s\n", markdownCell(strings.Join(unstable, ", ")))
	}
	if len(shared) == 0 && len(unstable) == 0 {
		b.WriteString("Different crashes have different signatures, and each has the same on all kernels.\n")
	}
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
