package report

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func madeWaits() *waits {
	return &waits{
		tasks: []string{"b (pid 2)", "a (pid 1)", "c (pid 3)"},
		locks: []heldLock{
			{name: "mutex m1", holder: "b (pid 2)", circle: true, waiters: []waiter{{"a (pid 1)", "for 6.3 s, in mutex_lock"}, {"c (pid 3)", ""}}},
			{name: "mutex m2", holder: "a (pid 1)", circle: true, waiters: []waiter{{"b (pid 2)", "for 6.3 s"}}},
			{name: "spinlock s", waiters: []waiter{{"c (pid 3)", "spins on CPU 1"}}},
			{name: "rwsem r", state: "3 readers"},
		},
	}
}

func TestWaitsText(t *testing.T) {
	want := []string{
		"mutex m1, held by b (pid 2), in a deadlock",
		"    <- a (pid 1)  for 6.3 s, in mutex_lock",
		"    <- c (pid 3)",
		"mutex m2, held by a (pid 1), in a deadlock",
		"    <- b (pid 2)  for 6.3 s",
		"spinlock s, whose holder is not known",
		"    <- c (pid 3)  spins on CPU 1",
		"rwsem r: 3 readers",
	}
	if diff := cmp.Diff(want, madeWaits().text(10)); diff != "" {
		t.Error(diff)
	}
	if got := madeWaits().text(1); !slices.Contains(got, "    <- 1 more") || got[len(got)-1] != "(3 more locks: inquest locks DUMP)" {
		t.Errorf("cut short: %q", got)
	}
}

func TestWaitsPicture(t *testing.T) {
	p := madeWaits().picture()
	var lines []string
	boxes := map[string]rect{}
	for _, b := range p.Boxes {
		if b.X < 0 || b.Y < 0 || b.X+b.W > p.Width || b.Y+b.H > p.Height {
			t.Errorf("box %q leaves the picture", b.Lines[0].Text)
		}
		boxes[b.Lines[0].Text] = b
	}
	at := func(y int) string { // the box of a side that a line ends in
		for name, b := range boxes {
			if y > b.Y && y < b.Y+b.H {
				_, task := strings.CutSuffix(name, ")")
				if task {
					return name
				}
			}
		}
		return "?"
	}
	for _, l := range p.Lines {
		lines = append(lines, fmt.Sprintf("%s %s", l.Class, at(l.Y1)))
	}
	want := []string{"holds b (pid 2)", "waits a (pid 1)", "waits c (pid 3)", "holds a (pid 1)", "waits b (pid 2)", "waits c (pid 3)"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

// A machine with many tasks gets a picture that ends, and says so.
func TestWaitsPictureOfMany(t *testing.T) {
	w := &waits{}
	for i := range 1000 {
		w.tasks = append(w.tasks, fmt.Sprintf("t (pid %d)", i))
		w.locks = append(w.locks, heldLock{name: fmt.Sprintf("mutex %d", i), holder: w.tasks[i], waiters: []waiter{{w.tasks[(i*7)%len(w.tasks)], ""}}})
	}
	if p := w.picture(); len(p.Boxes) != 2*waitMost || !strings.HasPrefix(p.More, "1976 more") {
		t.Errorf("%d boxes, %q", len(p.Boxes), p.More)
	}
}
