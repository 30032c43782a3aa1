package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"inquest/explain"
)

// How much a report shows that is not verbose: two screens in all.
const (
	maxLines    = 88
	maxEvidence = 6
	maxAlso     = 4
	maxDoubts   = 3
	maxAdvice   = 7
	maxLog      = 6
	maxWaits    = 4 // locks, and waiters of each
	minStack    = 10
	maxStack    = 26
)

// Text writes the story of a crash for a person: at most two screens, unless the
// style is verbose.
func Text(w io.Writer, c *explain.Case, findings []explain.Finding, s Style) error {
	lines := maxLog
	if s.Verbose {
		lines = 60
	}
	t := &text{s: s, story: tell(c, findings, lines, 0)}
	t.write()
	_, err := w.Write(t.Bytes())
	return err
}

// text is the layout for terminals and files.
type text struct {
	bytes.Buffer
	*story
	s Style
}

func (t *text) write() {
	t.lines(t.s.wrap("", "", t.headline))
	t.cause()
	t.draw()
	t.evidence()
	t.waiting()
	t.instructions()
	t.knownBug()
	t.advice()
	t.also()
	t.otherStack()
	t.stack()
	t.surroundings()
	t.lastLog()
}

func (t *text) printf(format string, args ...any) { fmt.Fprintf(&t.Buffer, format, args...) }

func (t *text) lines(lines []string) {
	for _, l := range lines {
		t.printf("%s\n", l)
	}
}

// dim writes a line that is beside the point.
func (t *text) dim(indent, line string) {
	for _, l := range t.s.wrap("", "", line) {
		t.printf("%s%s\n", indent, t.s.paint(dim, l))
	}
}

func (t *text) title(title string) {
	for i, l := range t.s.wrap("", "  ", title) {
		if i == 0 {
			t.WriteByte('\n')
		}
		t.printf("%s\n", t.s.paint(bold, l))
	}
}

// items writes a list, of which the style may leave out the end.
func (t *text) items(texts []string, most, linesEach int) {
	for i, text := range texts {
		if i == most && !t.s.Verbose {
			t.printf("  %s\n", t.s.paint(dim, fmt.Sprintf("(%d more with --verbose)", len(texts)-i)))
			return
		}
		t.lines(t.s.atMost(linesEach, "  * ", "    ", text))
	}
}

// cause says what happened.
func (t *text) cause() {
	if len(t.findings) == 0 {
		if t.crashed {
			t.WriteByte('\n')
			t.lines(t.s.wrap("  ", "  ", "What made it crash could not be concluded. The stack and the log below are what there is."))
		}
		return
	}
	f := t.findings[0]
	t.WriteByte('\n')
	for _, l := range t.s.atMost(4, "", "", f.Title) {
		t.printf("  %s\n", t.s.paint(red, shorten(l, t.s.width()-2)))
	}
	t.printf("  %s\n", t.s.paint(dim, t.s.cut(fmt.Sprintf("%s, %s", f.Class, f.Confidence))))
	if b := blame(f); b != "" {
		for _, l := range t.s.wrap("  ", "  ", b) {
			t.printf("%s\n", t.s.paint(dim, l))
		}
	}
	if t.lead != "" {
		t.WriteByte('\n')
		t.lines(t.s.wrap("  ", "  ", t.lead))
	}
}

func (t *text) draw() {
	if t.drawing == nil {
		return
	}
	t.WriteByte('\n')
	for _, l := range t.drawing.text(t.s.width() - 2) {
		l = shorten("  "+l, t.s.width())
		if i := strings.Index(l, "<- "); i >= 0 {
			l = l[:i] + t.s.paint(red, l[i:])
		}
		t.printf("%s\n", l)
	}
}

func (t *text) evidence() {
	if len(t.findings) == 0 {
		return
	}
	t.title("Evidence")
	t.proof(t.findings[0])
	if len(t.doubts) > 0 {
		t.title("What does not fit")
		t.items(t.doubts, maxDoubts, 3)
	}
}

func (t *text) proof(f explain.Finding) {
	if !t.s.Verbose {
		var texts []string
		for _, e := range f.Evidence {
			texts = append(texts, brief(e.Text))
		}
		t.items(texts, maxEvidence, 3)
		return
	}
	for _, e := range f.Evidence {
		t.lines(t.s.wrap("  * ", "    ", e.Text))
		if e.Check != "" {
			t.dim("    ", "see: "+command(e.Check))
		}
	}
}

// command is a check as it is typed.
func command(check string) string {
	name, args, _ := strings.Cut(check, " ")
	return strings.TrimSpace("inquest " + name + " DUMP " + args)
}

// instructions shows the code around the trapped instruction, and all registers when
// verbose.
func (t *text) instructions() {
	if len(t.code) > 0 {
		t.title("The code where it stopped")
	}
	for _, l := range t.code {
		mark, text := "   ", l.Text
		line := t.s.cut(fmt.Sprintf("  %s%s:  %s", mark, l.Place, text))
		if l.Here {
			line = t.s.paint(red, t.s.cut(fmt.Sprintf("  -> %s:  %s", l.Place, text)))
		}
		t.printf("%s\n", line)
	}
	if t.s.Verbose && t.regs != nil {
		t.WriteByte('\n')
		registers(&t.Buffer, t.regs)
	}
}

func (t *text) knownBug() {
	if len(t.findings) == 0 || t.findings[0].Advisory == nil {
		return
	}
	adv := t.findings[0].Advisory
	t.title("Known bug: " + adv.Title)
	t.lines(t.s.atMost(8, "  ", "  ", adv.Summary))
	t.items(signs(adv), maxEvidence, 3)
}

// signs are what a known bug was recognised by; the functions in one line.
func signs(known *explain.Known) []string {
	const onStack = " is on the stack"
	var functions, rest []string
	for _, s := range known.Signs {
		if name, ok := strings.CutSuffix(s, onStack); ok {
			functions = append(functions, name)
		} else {
			rest = append(rest, s)
		}
	}
	switch {
	case len(functions) == 1:
		rest = append([]string{functions[0] + onStack}, rest...)
	case len(functions) > 1:
		rest = append([]string{and(functions) + " are on the stack"}, rest...)
	}
	return rest
}

func (t *text) advice() {
	if len(t.findings) == 0 || len(t.findings[0].Advice) == 0 {
		return
	}
	t.title("What to do")
	t.items(t.findings[0].Advice, maxAdvice, 4)
}

func (t *text) also() {
	if len(t.findings) < 2 {
		return
	}
	t.title("Also found")
	if !t.s.Verbose {
		var texts []string
		for _, f := range t.findings[1:] {
			texts = append(texts, fmt.Sprintf("%s (%s, %s)", f.Title, f.Class, f.Confidence))
		}
		t.items(texts, maxAlso, 2)
		return
	}
	for _, f := range t.findings[1:] {
		t.lines(t.s.wrap("  * ", "    ", fmt.Sprintf("%s (%s, %s)", f.Title, f.Class, f.Confidence)))
		t.proof(f)
	}
}

// waiting says who waits for whom.
func (t *text) waiting() {
	if t.waits == nil {
		return
	}
	most := maxWaits
	if t.s.Verbose {
		most = 1000
	}
	t.title("Who waits for whom")
	for _, l := range t.waits.text(most) {
		t.lines(t.s.wrap("  "+l[:len(l)-len(strings.TrimLeft(l, " "))], "      ", l))
	}
}

// otherStack shows where the task stands that the cause is about.
func (t *text) otherStack() {
	if t.other == nil {
		return
	}
	t.title(t.other.title)
	if t.s.Verbose {
		Stack(&t.Buffer, t.other.trace, t.s)
		return
	}
	for i, f := range t.other.frames {
		if i == minStack {
			t.printf("     %s\n", t.s.paint(dim, fmt.Sprintf("(%d more: bt %d shows them)", len(t.other.frames)-i, t.other.trace.Task.PID)))
			break
		}
		t.lines(t.frame(f))
	}
}

func (t *text) stack() {
	if t.trace == nil && len(t.frames) == 0 {
		return
	}
	if t.s.Verbose && t.trace != nil {
		t.title("Stack")
		Stack(&t.Buffer, t.trace, t.s)
		return
	}
	t.title("Stack, innermost first")
	if n := len(t.dying); n > 0 {
		t.printf("     %s\n", t.s.paint(dim, fmt.Sprintf("(%s of panicking left out)", plural(n, "frame"))))
	}
	room := t.stackRoom()
	for i, f := range t.frames {
		lines := t.frame(f)
		if room -= len(lines); room < 0 && !t.s.Verbose {
			where := "bt shows them"
			if t.trace == nil {
				where = "--verbose shows them"
			}
			t.printf("     %s\n", t.s.paint(dim, fmt.Sprintf("(%d more: %s)", len(t.frames)-i, where)))
			break
		}
		t.lines(lines)
	}
	if t.problem != "" {
		t.lines(t.s.atMost(2, "     ", "     ", "This stack is not reliable: "+t.problem))
	} else if t.trace != nil && t.trace.User != nil {
		t.printf("     %s\n", t.s.paint(dim, "(user mode)"))
	}
}

// stackRoom is how many lines the stack may have, so that the whole stays short.
func (t *text) stackRoom() int {
	const behind = 4 + 3 + maxLog // user mode and modules, titles, log
	used := bytes.Count(t.Bytes(), []byte("\n"))
	return min(max(maxLines-used-behind, minStack), maxStack)
}

// frame is a frame with the arguments for which there is room, and the functions on
// the way to it that left by tail calls.
func (t *text) frame(f frame) []string {
	mark := "   "
	switch {
	case f.Guess:
		mark = " ? "
	case f.Trap:
		mark = "-> "
	}
	lines := []string{t.call(mark, f.Name, known(f.Args))}
	if f.Again > 0 {
		lines = append(lines, "     "+t.s.paint(dim, fmt.Sprintf("(and %s more)", plural(f.Again, "time"))))
	}
	for _, tail := range f.Tail {
		lines = append(lines, t.call(" ~ ", tail.Name, known(tail.Args)))
	}
	return lines
}

func (t *text) call(mark, name, args string) string {
	room := t.s.width() - 5
	name = shorten(name, room)
	line := "  " + mark + t.s.paint(cyan, name)
	if room -= utf8.RuneCountInString(name) + 2; args != "" && room > 12 {
		line += "  " + t.s.paint(dim, shorten(args, room))
	}
	return line
}

func (t *text) surroundings() {
	if t.modules == "" {
		return
	}
	t.title("Modules")
	t.lines(t.s.atMost(4, "  ", "  ", t.modules))
}

func (t *text) lastLog() {
	if len(t.log) == 0 {
		if t.logError != "" {
			t.title("Log")
			t.lines(t.s.wrap("  ", "  ", "The log cannot be read: "+t.logError))
		}
		return
	}
	title := "Last lines of the log"
	if t.crashed {
		title += " before the crash"
	}
	t.title(title)
	for _, l := range t.log {
		most := 1
		if l.Opens {
			most = 2
		}
		for _, line := range t.s.fold(most, "  ", "                   ", l.Text) {
			if l.Opens {
				line = t.s.paint(red, line)
			}
			t.printf("%s\n", line)
		}
	}
}
