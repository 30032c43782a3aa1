package report

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"inquest/advisory"
	"inquest/explain"
	"inquest/kernel"
	"inquest/kernel/x86"
	"inquest/stack"
	"inquest/vmcore"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update rewrites it):\n%s", name, diff)
	}
}

// example is the crash in a dump that belongs to the source.
func example(t testing.TB) (*explain.Case, []explain.Finding) {
	t.Helper()
	d, err := vmcore.Open("../testdata/example.kdump")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	k, err := kernel.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	c, err := explain.New(k)
	if err != nil {
		t.Fatal(err)
	}
	return c, c.Findings()
}

// confusion is a finding of a type confusion whose text has s everywhere.
func confusion(s string) explain.Finding {
	return explain.Finding{
		Class: explain.TypeConfusion, Title: "a small" + s + " was taken for a big in f" + s, Confidence: explain.Likely,
		Evidence: []explain.Evidence{
			{Text: "struct big *b = 0xffff888000001000 was passed to f " + s, Addr: 0xffff888000001000, Check: "bt --args"},
			{Text: "0xffff888000001000 is the start of object 0" + s, Check: "whatis 0xffff888000001000" + s},
		},
		Objects: []explain.Object{
			{Addr: 0xffff888000001000, Type: "small" + s, Role: "taken for struct big" + s, Cache: "small" + s, Size: 64,
				TakenFor: &explain.Taken{Type: "big" + s, Size: 0x240}},
			{Addr: 0xffff888000001048, Type: "small" + s, Role: "its neighbour" + s, Cache: "small" + s, Size: 64},
		},
		Overrun: []explain.Overrun{
			{Member: "big.lock.raw.counter" + s, Offset: 0x58, End: 0x40, By: "take_lock" + s, Is: "ports.local" + s},
			{Member: "big.far" + s, Offset: 0x200, End: 0x40, By: "f" + s},
		},
		Advisory: &explain.Known{
			Advisory: &advisory.Advisory{Title: "big and small are mixed up", Summary: "They are.", Fixed: []advisory.Commit{{Version: "9.9"}}},
			Stack:    true, Signs: []string{"f is on the stack", "g is on the stack", "f calls g" + s},
		},
		Advice: []string{"Fixed in Linux 9.9." + s, "Until then, do not." + s},
	}
}

// made is a story made up of all that a story can have, with s in all text.
func made(s string) *story {
	st := &story{
		headline: clean("Linux 9.8" + s + " crashed in task" + s), crashed: true,
		about:    []fact{{"Kernel", clean("9.8" + s)}},
		modules:  clean("1 module loaded; " + s),
		log:      []logLine{{clean("[    1.000000] before " + s), false}, {clean("[    2.000000] BUG: 0xffff888000001000 ffff888000001048 " + s), true}},
		logError: clean("the end is missing " + s),
		doubts:   []string{clean("log and registers disagree " + s)},
		code:     []codeLine{{clean("f+0x1" + s), clean("nop" + s), false}, {"f+0x2", "mov %rax,(%rdi)", true}},
	}
	other := explain.Finding{Class: explain.Warning, Title: "warning in f" + s, Confidence: explain.Certain, Evidence: []explain.Evidence{{Text: "WARNING" + s, Check: "log"}}}
	st.find([]explain.Finding{confusion(s), other})
	cr := crash(s)
	st.regs = &cr.Fault.Regs
	st.follow(cr)
	return st
}

func crash(s string) *explain.Crash {
	var regs x86.Regs
	regs.Set(x86.RIP, 0xffffffff81000002)
	regs.Set(x86.RDI, 0xffff888000001058)
	regs.Set(x86.RAX, 7)
	arg := stack.Arg{Name: "b" + s, Type: "struct big *", Known: true, Value: 0xffff888000001000, From: "rdi" + s}
	lost := stack.Arg{Name: "n", Type: "int" + s, Again: &stack.Reread{Value: 3, Expr: "x->n" + s}}
	trace := &stack.Trace{
		Task:    &kernel.Task{Object: kernel.Object{Addr: 0xffff888000002000}, PID: 7, Comm: "task" + s, State: "R"},
		Problem: "no table " + s,
		Frames: []stack.Frame{
			{PC: 0xffffffff81000500, SP: 0xffffc90000000e00, Symbol: kernel.Symbol{Name: "panic" + s}, Offset: 0x10},
			{PC: 0xffffffff81000002, SP: 0xffffc90000000f00, Symbol: kernel.Symbol{Name: "f" + s, Module: "mod" + s}, Offset: 2, Exact: true, RegsAt: 0xffffc90000000e80, Regs: regs,
				Args: []stack.Arg{arg, lost, {Name: "m", Type: "u64", From: "unknown"}, {Name: "done", Type: "void (*)()", Known: true, Value: 0xffffffff81000100, From: "rsi"}},
				Tail: []stack.TailCall{{Symbol: kernel.Symbol{Name: "hop" + s}, Args: []stack.Arg{arg}, OneOf: true}}},
			{PC: 0xffffffff81000100, Symbol: kernel.Symbol{Name: "g" + s}, Offset: 0x10},
			{PC: 0xffffffff81000100, Symbol: kernel.Symbol{Name: "g" + s}, Offset: 0x10},
			{PC: 0xffffffff81000200, Guess: true},
		},
		User: &regs,
	}
	return &explain.Crash{Trace: trace, Culprit: 1, Fault: &explain.FaultSite{Frame: 1, Regs: regs}}
}

func renderText(st *story, s Style) string {
	x := &text{s: s, story: st}
	x.write()
	return x.String()
}

func renderMarkdown(st *story) string {
	m := &markdown{story: st}
	m.write()
	return m.String()
}

func renderPage(t testing.TB, st *story) string {
	var b bytes.Buffer
	if err := writePage(&b, st, collect(st)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExample(t *testing.T) {
	c, findings := example(t)
	var plain, narrow, verbose, md, html bytes.Buffer
	for _, err := range []error{
		Text(&plain, c, findings, Style{}),
		Text(&narrow, c, findings, Style{Width: 64}),
		Text(&verbose, c, findings, Style{Verbose: true}),
		Markdown(&md, c, findings),
		HTML(&html, c, findings),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "example.txt", plain.Bytes())
	checkClean(t, verbose.String())
	checkText(t, plain.String(), 100)
	checkText(t, narrow.String(), 64)
	checkMarkdown(t, md.String())
	checkPage(t, html.String())
	if n := strings.Count(plain.String(), "\n"); n > 90 {
		t.Errorf("%d lines are more than two screens", n)
	}
}

func TestMade(t *testing.T) {
	st := made("")
	golden(t, "made.txt", []byte(renderText(st, Style{})))
	golden(t, "made_narrow.txt", []byte(renderText(st, Style{Width: 60})))
	golden(t, "made_colour.txt", []byte(renderText(st, Style{Colour: true})))
	golden(t, "made_verbose.txt", []byte(renderText(st, Style{Verbose: true})))
	golden(t, "made.md", []byte(renderMarkdown(st)))
	page := renderPage(t, st)
	checkPage(t, page)
	golden(t, "made.html", []byte(strings.Replace(page, pageCSS, "", 1)))
}

func TestNothingFound(t *testing.T) {
	st := &story{headline: "Linux 9.8 crashed", crashed: true, modules: "No module is loaded.", logError: "not there"}
	quiet := &story{headline: "Linux 9.8: nothing", log: []logLine{{"[    1.000000] all is well", false}}}
	checkMarkdown(t, renderMarkdown(quiet))
	checkPage(t, renderPage(t, quiet))
	text := renderText(st, Style{})
	if !strings.Contains(text, "could not be concluded") || !strings.Contains(text, "not there") {
		t.Errorf("the text does not say that nothing was found:\n%s", text)
	}
	checkMarkdown(t, renderMarkdown(st))
	checkPage(t, renderPage(t, st))
}

func TestStack(t *testing.T) {
	var b bytes.Buffer
	Stack(&b, crash("").Trace, Style{})
	golden(t, "stack.txt", b.Bytes())
}

// TestWidths lays a report out for all widths that a terminal may have.
func TestWidths(t *testing.T) {
	for width := range 130 {
		want := max(40, min(width, 100))
		if width == 0 {
			want = 100
		}
		checkText(t, renderText(made(""), Style{Width: width}), want)
	}
}

// TestDeepStack keeps a report with a long stack and much evidence short.
func TestDeepStack(t *testing.T) {
	st := made("")
	for i := range 500 {
		st.frames = append(st.frames, frame{Index: 100 + i, Name: fmt.Sprintf("recurse_%d", i)})
		st.doubts = append(st.doubts, "another doubt")
		st.findings = append(st.findings, st.findings[1])
		st.findings[0].Evidence = append(st.findings[0].Evidence, explain.Evidence{Text: strings.Repeat("more ", 200)})
	}
	if n := strings.Count(renderText(st, Style{}), "\n"); n > 100 {
		t.Errorf("%d lines", n)
	}
	checkPage(t, renderPage(t, st))
}

// checkText verifies that text fits and cannot drive a terminal.
func checkText(t testing.TB, text string, width int) {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		if n := utf8.RuneCountInString(line); n > width {
			t.Errorf("line %d has %d columns of %d: %q", i+1, n, width, line)
		}
	}
	checkClean(t, text)
}

func checkClean(t testing.TB, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && r != clean0(r) }); i >= 0 {
		t.Errorf("unclean text at %d: %q", i, text[max(0, i-20):min(len(text), i+20)])
	}
	if !utf8.ValidString(text) {
		t.Error("invalid UTF-8")
	}
}

// clean0 is what clean makes of one character.
func clean0(r rune) rune {
	c, _ := utf8.DecodeRuneInString(clean(string(r)))
	return c
}
