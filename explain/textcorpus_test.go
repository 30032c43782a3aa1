//go:build corpus

package explain

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"inquest/console"
)

// TestTextCorpus holds what is said of reports of other people's machines against what
// others judged them to be: each file of the directory that INQUEST_TEXT_CORPUS names
// begins with lines "TITLE: …" (and more such), then an empty line, then the log. The
// titles are syzkaller's, whose own test data (pkg/report/testdata/linux/report) is such
// a directory:
//
//	INQUEST_TEXT_CORPUS=…/report go test -tags corpus -run TextCorpus -v ./explain
//
// docs/text.md has the result and says how it is to be read.
func TestTextCorpus(t *testing.T) {
	dir := os.Getenv("INQUEST_TEXT_CORPUS")
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if dir == "" || err != nil || len(files) == 0 {
		t.Fatalf("INQUEST_TEXT_CORPUS=%q names no directory of reports", dir)
	}
	slices.Sort(files)
	var n tally
	parity := os.Getenv("INQUEST_TEXT_HALF") // "even" or "odd": only half of the files
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if last := file[len(file)-1]; parity == "even" && last%2 != 0 || parity == "odd" && last%2 == 0 {
			continue
		}
		want, log := judged(data)
		n.add(t, filepath.Base(file), want, log)
	}
	t.Logf("%d reports: class right %d, silent %d, not the kernel's %d (of those %d silent)", n.reports, n.class, n.silent, n.foreign, n.foreignSilent)
	t.Logf("%d name a function: the same function %d, another of the same stack %d, both class and function right %d", n.named, n.function, n.near, n.both)
	if n.reports > 0 && n.class*100 < n.reports*95 {
		t.Errorf("the class is right in %d of %d, want 95 %%", n.class, n.reports)
	}
}

type judgement struct {
	title    string
	alt      []string
	classes  []Class // any of them; empty: no report of the kernel's own
	function string
}

type tally struct {
	reports, class, silent, named, function, near, both, foreign, foreignSilent int
}

func (n *tally) add(t *testing.T, name string, want judgement, log []byte) {
	l, err := console.Read(bytes.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	c := NewText(l)
	found := c.Findings()
	if len(want.classes) == 0 {
		n.foreign++
		if len(found) == 0 {
			n.foreignSilent++
		} else {
			t.Logf("%s: FOREIGN want %q, got %q", name, want.title, found[0].Title)
		}
		return
	}
	n.reports++
	if len(found) == 0 {
		n.silent++
		t.Logf("%s: SILENT want %q", name, want.title)
		return
	}
	f := found[0]
	right := slices.Contains(want.classes, f.Class)
	if right {
		n.class++
	} else {
		t.Logf("%s: CLASS %s want %q %v, got %q", name, f.Class, want.title, want.classes, f.Title)
	}
	if want.function == "" {
		return
	}
	n.named++
	names := []string{want.function}
	for _, a := range want.alt {
		if _, fn, ok := strings.Cut(a, " in "); ok {
			names = append(names, fn)
		}
	}
	same := false
	for _, name := range names {
		for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '/' }) {
			same = same || containsWord(f.Title, part)
		}
	}
	switch {
	case same:
		n.function++
		if right {
			n.both++
		}
	case onStackOf(c.Report, names):
		n.near++
		t.Logf("%s: NEAR want %q, got %q", name, want.title, f.Title)
	default:
		t.Logf("%s: FUNCTION want %q, got %q", name, want.title, f.Title)
	}
}

func containsWord(s, word string) bool {
	word = console.Base(word)
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' }) {
		if w == word || normal(w) == normal(word) {
			return true
		}
	}
	return false
}

// normal joins the names of a system call's entry on different machines.
func normal(name string) string {
	for _, p := range []string{"__x64_sys_", "__arm64_sys_", "__ia32_sys_", "__se_sys_", "__do_sys_", "SyS_", "SYSC_", "__sys_", "__riscv_sys_", "ksys_"} {
		if rest, ok := strings.CutPrefix(name, p); ok {
			return "sys_" + rest
		}
	}
	return name
}

func onStackOf(r *console.Report, names []string) bool {
	for i := range r.Sections {
		for j := range r.Sections[i].Frames {
			for _, n := range names {
				if normal(r.Sections[i].Frames[j].Name()) == normal(console.Base(n)) {
					return true
				}
			}
		}
	}
	return false
}

// judged splits a file into what others say of it and the log.
func judged(data []byte) (judgement, []byte) {
	head, log, _ := bytes.Cut(data, []byte("\n\n"))
	var j judgement
	for line := range strings.Lines(string(head)) {
		key, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "TITLE":
			j.title = v
		case "ALT":
			j.alt = append(j.alt, v)
		}
	}
	j.classes = classesOf(j.title)
	if _, fn, ok := strings.Cut(j.title, " in "); ok {
		fn, _, _ = strings.Cut(fn, " at addr")
		if fn != "corrupted" {
			j.function = fn
		}
	}
	return j, log
}

// classesOf are the classes that a title of syzkaller's stands for.
func classesOf(title string) []Class {
	for _, m := range judgedAs {
		if strings.Contains(title, m.part) {
			return m.classes
		}
	}
	return nil
}

var judgedAs = []struct {
	part    string
	classes []Class
}{
	{"SYZFAIL", nil}, {"SYZFATAL", nil}, {"trusty: ", nil}, {"go runtime error", nil}, {"unexpected kernel reboot", nil}, {"executor", nil},
	{"double-free", []Class{DoubleFree}}, {"invalid-free", []Class{DoubleFree}}, {"invalid free", []Class{DoubleFree}}, {"Object already free", []Class{DoubleFree}},
	{"KFENCE: use-after-free", []Class{UseAfterFree}}, {"use-after-free in", []Class{UseAfterFree}}, {"use-after-free Read", []Class{UseAfterFree}}, {"use-after-free Write", []Class{UseAfterFree}},
	{"out-of-bounds", []Class{OutOfBounds}}, {"memory corruption", []Class{OutOfBounds}}, {"bad usercopy", []Class{OutOfBounds}},
	{"KASAN: null-ptr-deref", []Class{NullDereference}}, {"KASAN: ", []Class{WildPointer, UseAfterFree, OutOfBounds}},
	{"KFENCE: invalid", []Class{WildPointer}},
	{"KMSAN", []Class{Bug}}, {"KCSAN", []Class{Bug}}, {"UBSAN: array-index", []Class{OutOfBounds}}, {"UBSAN", []Class{Bug, OutOfBounds, DivideError}},
	{"NULL pointer dereference", []Class{NullDereference}},
	{"unable to handle kernel", []Class{WildPointer, NullDereference, UseAfterFree, BadInstruction}},
	{"general protection fault", []Class{WildPointer, NullDereference, UseAfterFree, UserPanic}},
	{"stack segment", []Class{WildPointer, NullDereference}}, {"Unhandled fault", []Class{WildPointer, MachineCheck, NullDereference}}, {"Alignment trap", []Class{WildPointer, Unknown}}, {"Internal error", []Class{WildPointer, Unknown, BadInstruction, MachineCheck, Bug}},
	{"stack guard page", []Class{StackOverflow}}, {"kernel stack overflow", []Class{StackOverflow}}, {"corrupted stack end", []Class{StackOverflow}}, {"stack is corrupted", []Class{StackOverflow}},
	{"corrupted list", []Class{ListCorruption}}, {"refcount bug", []Class{RefCount}},
	{"soft lockup", []Class{SoftLockup}}, {"rcu detected stall", []Class{RCUStall}}, {"task hung", []Class{HungTask}}, {"can't die", []Class{HungTask}}, {"workqueue lockup", []Class{HungTask}},
	{"possible deadlock", []Class{Deadlock}}, {"inconsistent lock state", []Class{Deadlock}}, {"spinlock lockup", []Class{Deadlock}}, {"spinlock recursion", []Class{Deadlock}}, {"circular locking", []Class{Deadlock}},
	{"double fault", []Class{DoubleFault}}, {"divide error", []Class{DivideError}}, {"int3", []Class{BadInstruction}},
	{"WARNING: bad unlock balance", []Class{Warning}}, {"ODEBUG bug", []Class{Warning, UseAfterFree}}, {"suspicious RCU", []Class{Warning}},
	{"INFO: trying to register", []Class{Warning}}, {"INFO: Allocated in", nil}, {"INFO: Freed in", nil},
	{"kernel panic: hung_task", []Class{HungTask}}, {"kernel panic: panic_on_warn", []Class{Warning}}, {"kernel panic: sysrq", []Class{UserPanic}}, {"kernel panic", []Class{Unknown}},
	{"WARNING: locking bug", []Class{Warning, Bug}},
	{"kernel BUG in", []Class{Bug, OutOfBounds}}, {"WARNING in", []Class{Warning, OutOfBounds}}, // FORTIFY_SOURCE and the checks of packet buffers end so
	{"WARNING", []Class{Warning}}, {"VFS: ", nil}, {"unregister_netdevice", nil}, {"INFO: corrupted", nil},
	{"memory leak", []Class{Bug}}, {"BUG", []Class{Bug}}, {"attempt to ", []Class{Bug}},
}
