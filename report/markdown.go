package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"inquest/explain"
)

// Markdown writes the story of a crash for a bug tracker, in the flavour that GitHub
// and GitLab share. What comes from the dump cannot become markup, nor a link, nor
// the mention of a user.
func Markdown(w io.Writer, c *explain.Case, findings []explain.Finding) error {
	m := &markdown{story: tell(c, findings, 20, 60)}
	m.write()
	_, err := w.Write(m.Bytes())
	return err
}

type markdown struct {
	bytes.Buffer
	*story
}

func (m *markdown) printf(format string, args ...any) { fmt.Fprintf(&m.Buffer, format, args...) }

func (m *markdown) write() {
	m.cause()
	if m.drawing != nil {
		m.fence(m.drawing.text(96))
	}
	m.evidence()
	if m.waits != nil {
		m.printf("\n## Who waits for whom\n")
		m.fence(m.waits.text(50))
	}
	m.knownBug()
	m.instructions()
	m.stack()
	m.also()
	if m.modules != "" {
		m.printf("\n## Modules\n\n%s\n", prose(m.modules))
	}
	m.lastLog()
	m.printf("\n## The dump\n\n")
	for _, f := range m.about {
		m.printf("* %s: %s\n", f.Name, code(f.Value))
	}
}

func (m *markdown) cause() {
	m.printf("# %s\n\n%s\n", prose(m.title()), prose(m.headline))
	if len(m.findings) > 0 {
		f := m.findings[0]
		m.printf("\n**%s, %s.** %s\n", prose(string(f.Class)), f.Confidence, prose(m.lead))
		if b := blame(f); b != "" {
			m.printf("\n%s.\n", prose(capital(b)))
		}
	}
}

// fence writes lines as they are.
func (m *markdown) fence(lines []string) {
	text := strings.Join(lines, "\n")
	ticks := strings.Repeat("`", max(3, longestRun(text, '`')+1))
	m.printf("\n%stext\n%s\n%s\n", ticks, text, ticks)
}

func (m *markdown) items(texts []string) {
	m.WriteByte('\n')
	for _, t := range texts {
		m.printf("* %s\n", prose(t))
	}
}

func (m *markdown) evidence() {
	if len(m.findings) > 0 {
		m.printf("\n## Evidence\n\n")
		m.proof(m.findings[0], "")
	}
	if len(m.doubts) > 0 {
		m.printf("\n## What does not fit\n")
		m.items(m.doubts)
	}
}

func (m *markdown) proof(f explain.Finding, indent string) {
	for _, e := range f.Evidence {
		m.printf("%s* %s\n", indent, prose(e.Text))
		if e.Check != "" {
			m.printf("%s  %s\n", indent, code(command(e.Check)))
		}
	}
}

func (m *markdown) knownBug() {
	if len(m.findings) == 0 {
		return
	}
	f := m.findings[0]
	if adv := f.Advisory; adv != nil {
		m.printf("\n## Known bug: %s\n\n%s\n", prose(adv.Title), prose(adv.Summary))
		m.items(signs(adv))
	}
	if len(f.Advice) > 0 {
		m.printf("\n## What to do\n")
		m.items(f.Advice)
	}
}

func (m *markdown) instructions() {
	if len(m.code) > 0 {
		m.printf("\n## The code where it stopped\n")
		m.fence(codeText(m.code))
	}
	if m.regs != nil {
		var b bytes.Buffer
		registers(&b, m.regs)
		m.printf("\n## Registers\n")
		m.fence(strings.Split(strings.TrimRight(b.String(), "\n"), "\n"))
	}
}

func codeText(code []codeLine) []string {
	var lines []string
	for _, l := range code {
		mark := "  "
		if l.Here {
			mark = "->"
		}
		lines = append(lines, fmt.Sprintf("%s %s:  %s", mark, l.Place, l.Text))
	}
	return lines
}

func (m *markdown) stack() {
	if m.trace == nil && len(m.frames) == 0 {
		return
	}
	var b bytes.Buffer
	if m.other != nil {
		m.printf("\n## %s\n", prose(m.other.title))
		Stack(&b, m.other.trace, Style{Verbose: true})
		m.fence(strings.Split(strings.TrimRight(b.String(), "\n"), "\n"))
		b.Reset()
	}
	m.printf("\n## Stack, innermost first\n")
	if m.trace == nil {
		var names []string
		for _, f := range m.frames {
			names = append(names, f.Name)
		}
		m.fence(names)
		return
	}
	Stack(&b, m.trace, Style{Verbose: true})
	m.fence(strings.Split(strings.TrimRight(b.String(), "\n"), "\n"))
	if m.problem != "" {
		m.printf("\nThis stack is not reliable: %s\n", prose(m.problem))
	}
}

func (m *markdown) also() {
	if len(m.findings) < 2 {
		return
	}
	m.printf("\n## Also found\n\n")
	for _, f := range m.findings[1:] {
		m.printf("* %s (%s, %s)\n", prose(f.Title), prose(string(f.Class)), f.Confidence)
		m.proof(f, "  ")
	}
}

func (m *markdown) lastLog() {
	m.printf("\n## Log\n")
	if m.logError != "" {
		m.printf("\nThe log cannot be read: %s\n", prose(m.logError))
	}
	var lines []string
	for _, l := range m.log {
		lines = append(lines, l.Text)
	}
	if len(lines) > 0 {
		m.fence(lines)
	}
}

// prose escapes text that may hold anything: no character in it is markup. Bug
// trackers look for mentions, references and links in whatever is not code, so that
// the characters by which they find them become code.
func prose(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		rest := text[i:]
		switch ch := text[i]; {
		case ch == '@', ch == '#' && i+1 < len(text) && isDigit(text[i+1]):
			b.WriteString("`" + string(ch) + "`")
		case strings.HasPrefix(rest, "://"):
			b.WriteString("`://`")
			i += 2
		case len(rest) >= 4 && strings.EqualFold(rest[:4], "www."):
			b.WriteString("`" + rest[:4] + "`")
			i += 3
		case strings.IndexByte("\\`*[]<>|~&!$#", ch) >= 0, ch == '_' && !inWord(text, i), strings.IndexByte("-+=.)", ch) >= 0 && startsBlock(text, i):
			b.WriteString("\\" + string(ch))
		default:
			b.WriteByte(ch)
		}
	}
	return b.String()
}

func isDigit(ch byte) bool { return ch >= '0' && ch <= '9' }

// inWord reports whether an underscore is between letters or digits, where it does not
// emphasise.
func inWord(text string, i int) bool {
	letter := func(i int) bool {
		return i >= 0 && i < len(text) && (isDigit(text[i]) || text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z' || text[i] == '_')
	}
	return i > 0 && text[i-1] != '_' && letter(i-1) && letter(i+1) && text[i+1] != '_'
}

// startsBlock reports whether a character would make a list, a heading or a rule of
// what it stands in front of.
func startsBlock(text string, i int) bool {
	return i < 10 && strings.Trim(text[:i], "0123456789") == ""
}

// code writes text as code on one line.
func code(text string) string {
	ticks := strings.Repeat("`", longestRun(text, '`')+1)
	pad := ""
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") || text == "" {
		pad = " "
	}
	return ticks + pad + text + pad + ticks
}

// longestRun is the length of the longest run of a character.
func longestRun(text string, of rune) int {
	longest, n := 0, 0
	for _, r := range text {
		if r != of {
			n = 0
			continue
		}
		n++
		longest = max(longest, n)
	}
	return longest
}
