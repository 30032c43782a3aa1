package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"inquest/explain"
	"inquest/heap"
	"inquest/kernel/x86"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// How much of the log a page has.
const (
	pageLogBefore = 300
	pageLogAfter  = 300
)

// HTML writes the story of a crash as a page that needs nothing else: no network, no
// script. Addresses in it are links to what they are.
func HTML(w io.Writer, c *explain.Case, findings []explain.Finding) error {
	st := tell(c, findings, pageLogBefore, pageLogAfter)
	addrs := collect(st)
	addrs.describe(heap.New(c.Kernel))
	return writePage(w, st, addrs)
}

// writePage writes nothing when it fails.
func writePage(w io.Writer, st *story, addrs *addresses) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, newPage(st, addrs)); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// page is what the template shows.
type page struct {
	CSS        template.CSS
	Title      string
	Headline   string
	About      []fact
	Cause      *pageFinding
	Lead       []piece
	Others     []pageFinding
	Doubts     []string
	Picture    *picture
	Waits      *waitPicture
	WaitLines  []string
	Other      string // title of the stack of a task that did not crash
	OtherStack []string
	Code       []codeLine
	Registers  []pageRegister
	Dying      []pageFrame
	DyingNote  string
	Frames     []pageFrame
	User       bool
	Problem    string
	Addresses  []pageAddress
	Modules    string
	Log        []pageLog
	Opens      bool // a line of the log reports the crash
	LogError   string
}

type pageFinding struct {
	Title      string
	Class      string
	Confidence string
	Blame      string
	Evidence   []pageEvidence
	Known      *explain.Known
	Signs      []string
	Advice     []string
}

type pageEvidence struct {
	Text  []piece
	Check string
}

type pageRegister struct {
	ID, Name string
	Value    []piece
}

type pageFrame struct {
	frame
	ID   string
	Via  string // what left by tail calls
	Args []pageArgument
	Tail []pageTail
}

type pageTail struct {
	Name, Note string
	Args       []pageArgument
}

type pageArgument struct {
	Decl  string
	Value []piece // nil when unknown
	Text  []piece
}

type pageAddress struct {
	*address
	Hex  string
	Desc []piece
}

type pageLog struct {
	Text  []piece
	Opens bool
}

func newPage(st *story, addrs *addresses) *page {
	p := &page{
		CSS:      template.CSS(pageCSS),
		Title:    st.title(),
		Headline: st.headline, About: st.about, Doubts: st.doubts, Code: st.code,
		Dying: pageFrames(st.dying, addrs), DyingNote: plural(len(st.dying), "frame") + " of panicking", Frames: pageFrames(st.frames, addrs),
		User:      st.trace != nil && st.trace.User != nil,
		Problem:   st.problem,
		Registers: pageRegisters(st.regs, addrs),
		Modules:   st.modules,
		LogError:  st.logError,
	}
	for i, f := range st.findings {
		pf := newPageFinding(f, addrs)
		if i > 0 {
			p.Others = append(p.Others, pf)
			continue
		}
		p.Cause, p.Lead = &pf, addrs.link(st.lead)
	}
	if st.drawing != nil {
		p.Picture = st.drawing.picture()
	}
	if st.waits != nil {
		p.Waits, p.WaitLines = st.waits.picture(), st.waits.text(200)
	}
	if st.other != nil {
		p.Other = st.other.title
		for _, f := range st.other.frames {
			p.OtherStack = append(p.OtherStack, f.Name)
		}
	}
	for _, row := range addrs.sorted() {
		p.Addresses = append(p.Addresses, pageAddress{row, fmt.Sprintf("%#x", row.Value), addrs.linkBut(row.Desc, row.ID)})
	}
	for _, l := range st.log {
		p.Log = append(p.Log, pageLog{addrs.link(l.Text), l.Opens && !p.Opens})
		p.Opens = p.Opens || l.Opens
	}
	return p
}

func newPageFinding(f explain.Finding, addrs *addresses) pageFinding {
	out := pageFinding{Title: f.Title, Class: string(f.Class), Confidence: f.Confidence.String(), Blame: capital(blame(f)), Known: f.Advisory, Advice: f.Advice}
	for _, e := range f.Evidence {
		pe := pageEvidence{Text: addrs.link(e.Text)}
		if e.Check != "" {
			pe.Check = command(e.Check)
		}
		out.Evidence = append(out.Evidence, pe)
	}
	if f.Advisory != nil {
		out.Signs = signs(f.Advisory)
	}
	return out
}

// registerOrder is that of crash(8).
var registerOrder = []x86.Reg{
	x86.RIP, x86.RSP, x86.EFlags, x86.RAX, x86.RBX, x86.RCX, x86.RDX, x86.RSI, x86.RDI, x86.RBP, x86.R8, x86.R9,
	x86.R10, x86.R11, x86.R12, x86.R13, x86.R14, x86.R15, x86.OrigRAX, x86.CS, x86.SS,
}

func pageRegisters(regs *x86.Regs, addrs *addresses) []pageRegister {
	if regs == nil {
		return nil
	}
	var out []pageRegister
	for _, r := range registerOrder {
		if v, ok := regs.Get(r); ok {
			out = append(out, pageRegister{"reg-" + r.String(), r.String(), addrs.link(fmt.Sprintf("%016x", v))})
		}
	}
	return out
}

func pageFrames(frames []frame, addrs *addresses) []pageFrame {
	var out []pageFrame
	for _, f := range frames {
		pf := pageFrame{frame: f, ID: fmt.Sprintf("frame-%d", f.Index), Args: pageArguments(f.Args, addrs)}
		var names []string
		for _, t := range f.Tail {
			names = append(names, t.Name)
			pf.Tail = append(pf.Tail, pageTail{t.Name, t.Note, pageArguments(t.Args, addrs)})
		}
		pf.Via = and(names)
		out = append(out, pf)
	}
	return out
}

func pageArguments(args []argument, addrs *addresses) []pageArgument {
	var out []pageArgument
	for _, a := range args {
		pa := pageArgument{Decl: a.Decl, Text: addrs.link(a.Text)}
		if a.Value != nil {
			pa.Value = addrs.link(fmt.Sprintf("%#x", *a.Value))
		}
		out = append(out, pa)
	}
	return out
}

// linkBut is link without links to one anchor: from where that is.
func (a *addresses) linkBut(text, id string) []piece {
	out := a.link(text)
	for i := range out {
		if out[i].To == id {
			out[i].To = ""
		}
	}
	return out
}
