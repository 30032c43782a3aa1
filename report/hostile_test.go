package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"inquest/explain"
	"inquest/kernel"
	"inquest/stack"
)

// hostile is what a dump may have in place of names and messages.
var hostile = []string{
	"</script><script>alert(1)</script>",
	`"><img src=x onerror=alert(1)>`,
	"' onload='alert(1)",
	"{{.CSS}} {{template \"text\"}}",
	"<!-- ]]> -->",
	"\n```\n# heading\n<b>bold</b>\n",
	"`a``b```c````",
	"[link](http://example.com) ![](https://example.com/x.png) <https://example.com>",
	"@everyone #1 www.example.com mail@example.com",
	"*a* _b_ __c__ ~~d~~ | e | $f$ &lt; \\`",
	"- item\n1. one\n> quote\n===\n---",
	"\x1b[31mred\x1b]0;title\x07\r\b\x7f\u009b31m",
	"\u202egnp.exe\u2066 \u200b\ufeff\u2028\u2029",
	"\xff\xfe\xc0\x80 \xed\xa0\x80",
	"\x00",
	"\\",
	strings.Repeat("A", 5000),
	strings.Repeat("w ", 3000),
	strings.Repeat("a.", 300),
	strings.Repeat("\xe4\xb8\xad", 300),
}

func TestHostile(t *testing.T) {
	for _, s := range hostile {
		checkAll(t, s)
	}
}

func checkAll(t testing.TB, s string) {
	t.Helper()
	st := made(s)
	checkText(t, renderText(st, Style{}), 100)
	checkText(t, renderText(st, Style{Width: 40}), 40)
	checkClean(t, renderText(st, Style{Verbose: true}))
	checkMarkdown(t, renderMarkdown(st))
	checkPage(t, renderPage(t, st))
}

func FuzzText(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, 80)
	}
	f.Fuzz(func(t *testing.T, s string, width int) {
		st := made(s)
		checkText(t, renderText(st, Style{Width: width}), Style{Width: width}.width())
		checkClean(t, renderText(st, Style{Width: width, Verbose: true}))
	})
}

func FuzzMarkdown(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkMarkdown(t, renderMarkdown(made(s))) })
}

func FuzzHTML(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkPage(t, renderPage(t, made(s))) })
}

// FuzzDrawing draws objects of all sizes, at all distances.
func FuzzDrawing(f *testing.F) {
	f.Add(uint64(64), uint64(0x48), uint64(64), uint64(0x58), uint64(0x40), uint64(300))
	f.Add(uint64(64), uint64(8), uint64(1<<40), uint64(1<<39), uint64(10), uint64(1))
	f.Fuzz(func(t *testing.T, size, next, nextSize, used, end, taken uint64) {
		d := newDrawing(explain.Finding{
			Class:   explain.TypeConfusion,
			Objects: []explain.Object{{Addr: 0xffff888000001000, Size: size, TakenFor: &explain.Taken{Size: taken}}, {Addr: kernel.Addr(0xffff888000001000 + next), Size: nextSize}},
			Overrun: []explain.Overrun{{Member: "big.member", Offset: used, End: end, By: "f"}},
		})
		if d == nil {
			return
		}
		for _, width := range []int{40, 98} {
			for _, l := range d.text(width) {
				checkClean(t, l)
			}
		}
		p := d.picture()
		if p.Height > 2000 {
			t.Errorf("a picture %d high", p.Height)
		}
		for _, r := range append(p.Blocks, p.Struct) {
			if r.W <= 0 || r.H <= 0 || r.Y < 0 || r.Y+r.H > p.Height {
				t.Errorf("%+v is outside of a picture %d high", r, p.Height)
			}
		}
		for _, a := range p.Arrows {
			if a.Y < 0 || a.Y > p.Height {
				t.Errorf("%+v is outside of a picture %d high", a, p.Height)
			}
		}
	})
}

// forbidden are elements by which a page could load or run something.
var forbidden = map[string]bool{
	"script": true, "img": true, "iframe": true, "object": true, "embed": true, "link": true, "base": true, "form": true,
	"input": true, "image": true, "use": true, "foreignObject": true, "animate": true, "video": true, "audio": true,
}

// checkPage verifies that a page is well-formed, loads nothing, runs nothing, and that
// every link in it leads to an anchor in it.
func checkPage(t testing.TB, page string) {
	t.Helper()
	checkClean(t, page)
	ids, links := map[string]bool{}, map[string]bool{}
	headings := 0
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict = true
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if forbidden[e.Name.Local] {
			t.Errorf("a page with an element <%s>", e.Name.Local)
		}
		if e.Name.Local == "h1" {
			headings++
		}
		for _, a := range e.Attr {
			switch {
			case strings.HasPrefix(a.Name.Local, "on"), a.Name.Local == "src", a.Name.Local == "style":
				t.Errorf("<%s> with %s=%q", e.Name.Local, a.Name.Local, a.Value)
			case a.Name.Local == "id" && ids[a.Value]:
				t.Errorf("two anchors %q", a.Value)
			case a.Name.Local == "id":
				ids[a.Value] = true
			case a.Name.Local == "href":
				links[a.Value] = true
			}
		}
	}
	if headings != 1 {
		t.Errorf("%d main headings", headings)
	}
	for to := range links {
		if !strings.HasPrefix(to, "#") || !ids[to[1:]] {
			t.Errorf("a link to %q, which is not in the page", to)
		}
	}
}

var (
	fenceLine = regexp.MustCompile("^(`{3,})(text)?$")
	markup    = regexp.MustCompile(`[<\[\]*~@|!$&]|#\d|://|www\.|` + "`")
)

// punctuation can be escaped in Markdown.
const punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// checkMarkdown verifies that nothing but our own words is markup: fences are closed by
// what opened them, and outside of them and of code there is nothing that means something.
func checkMarkdown(t testing.TB, md string) {
	t.Helper()
	checkClean(t, md)
	fence := ""
	for i, line := range strings.Split(md, "\n") {
		if m := fenceLine.FindStringSubmatch(line); m != nil {
			switch {
			case fence == "":
				fence = m[1]
				continue
			case m[1] == fence && m[2] == "":
				fence = ""
				continue
			case len(m[1]) >= len(fence):
				t.Errorf("line %d closes a fence: %q", i+1, line)
			}
		}
		if fence != "" {
			continue
		}
		rest := strings.TrimLeft(line, " ")
		rest = strings.TrimPrefix(strings.TrimLeft(rest, "#"), " ")
		rest = strings.TrimPrefix(rest, "* ")
		if strings.HasPrefix(rest, "**") { // class and confidence
			rest = strings.Replace(rest[2:], "**", "", 1)
		}
		rest = plainText(rest)
		if m := markup.FindString(rest); m != "" {
			t.Errorf("line %d has markup %q: %.200q", i+1, m, line)
		}
	}
	if fence != "" {
		t.Error("a fence stays open")
	}
}

// plainText takes out what cannot be markup: what runs of as many backticks enclose, and
// what is escaped outside of that.
func plainText(line string) string {
	var out strings.Builder
	for i := 0; i < len(line); {
		switch {
		case line[i] == '\\' && i+1 < len(line) && strings.IndexByte(punctuation, line[i+1]) >= 0:
			i += 2
			continue
		case line[i] == '`':
			n := len(line[i:]) - len(strings.TrimLeft(line[i:], "`"))
			if j := closing(line[i+n:], n); j >= 0 {
				i += n + j + n
				continue
			}
		}
		out.WriteByte(line[i])
		i++
	}
	return out.String()
}

// closing finds a run of just n backticks.
func closing(s string, n int) int {
	for i := 0; i < len(s); {
		if s[i] != '`' {
			i++
			continue
		}
		run := len(s[i:]) - len(strings.TrimLeft(s[i:], "`"))
		if run == n {
			return i
		}
		i += run
	}
	return -1
}

func TestHostileJSON(t *testing.T) {
	for _, s := range hostile {
		doc, err := json.Marshal(StacksJSON("9.8"+s, crash(s).Trace.Task, []*stack.Trace{crash(s).Trace}))
		if err != nil || !json.Valid(doc) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
