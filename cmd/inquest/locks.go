package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"inquest/kernel"
	"inquest/lock"
	"inquest/stack"
)

var locksCommand = &command{
	name:  "locks",
	args:  "[PID | TASK | LOCK]...",
	max:   -1,
	short: "show who waits for which lock, who holds it, and deadlocks",
	long: `Show every lock that a task waits for, the one with most waiters first: mutexes,
rw_semaphores, rt_mutexes, semaphores, completions, and the spinlocks that a CPU
spins for. For each: who holds it, if that is known, what the lock itself says,
and who waits, in which function, for how long (since the scheduler last took the
task off its CPU), the longest first. Arguments limit it to the locks that these
tasks wait for or hold, and to these locks.

Tasks that wait in a circle are named below as DEADLOCK.

Mutexes, rt_mutexes and rw_semaphores that are held for writing know their holder.
Readers of an rw_semaphore are only counted, a spinlock knows its holder only with
CONFIG_DEBUG_SPINLOCK, and nobody holds a completion.

With -g: the waits as a graph, from those who hold up others to the last who waits.`,
	example: `inquest locks vmcore
inquest locks vmcore -g
inquest locks vmcore 1234
inquest locks vmcore --json | jq .deadlocks`,
	complete: completeTask,
	setup: func(f *pflag.FlagSet) runFunc {
		graph := f.BoolP("graph", "g", false, "show who holds up whom")
		return func(s *session, args []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			tasks, err := k.Tasks()
			if err != nil && len(tasks) == 0 {
				return fmt.Errorf("list the tasks: %w", err)
			}
			s.miss(err)
			unwinder := stack.NewUnwinder(k)
			v := locksView{s: s, k: k, u: unwinder, finder: lock.New(k, unwinder)}
			if v.graph, err = v.finder.Graph(tasks); err != nil {
				s.miss(err)
			}
			if err := v.limit(args); err != nil {
				return err
			}
			switch {
			case s.json:
				return v.json()
			case *graph:
				v.tree()
			default:
				v.text()
			}
			s.missing()
			return nil
		}
	},
}

// locksView is one run of the command.
type locksView struct {
	s      *session
	k      *kernel.Kernel
	u      *stack.Unwinder
	finder *lock.Finder
	graph  *lock.Graph
}

// limit leaves the locks and circles that have to do with the arguments.
func (v *locksView) limit(args []string) error {
	if len(args) == 0 {
		return nil
	}
	var pick taskChoice
	var addrs []kernel.Addr
	for _, a := range args {
		if pick.word(a) && pick.onlyNumbers() {
			continue
		}
		at, err := parseAddr(v.k, a)
		if err != nil {
			return err
		}
		addrs = append(addrs, at)
	}
	addrs = append(addrs, pick.addrs...)
	named := func(t *kernel.Task) bool {
		return t != nil && (slices.Contains(pick.pids, t.PID) && !t.Idle || slices.Contains(addrs, t.Addr))
	}
	waits := func(w lock.Wait) bool { return named(w.Task) || slices.Contains(addrs, w.Lock) }
	g := v.graph
	g.Locks = slices.DeleteFunc(g.Locks, func(l *lock.Lock) bool { return !named(l.Holder) && !slices.ContainsFunc(l.Waits, waits) })
	g.Circles = slices.DeleteFunc(g.Circles, func(c []lock.Wait) bool { return !slices.ContainsFunc(c, waits) })
	return nil
}

func (v *locksView) text() {
	if len(v.graph.Locks) == 0 {
		v.s.printf("No task waits for a lock.\n")
		return
	}
	for i, l := range v.graph.Locks {
		if i > 0 {
			v.s.printf("\n")
		}
		head := fmt.Sprintf("%s %s", strings.ToUpper(l.Kind.String()), lock.Name(v.k, l.Addr))
		if l.State != "" {
			head += ": " + clean(l.State)
		}
		v.s.printf("%s\n", v.s.term.paint(bold, head))
		if l.Holder != nil {
			v.s.printf("  HELD BY  %s  %s\n", taskLine(l.Holder), clean(v.doing(l.Holder)))
		}
		for _, w := range l.Waits {
			v.s.printf("  WAITS    %s  %s\n", taskLine(w.Task), v.waiting(w))
		}
	}
	for _, c := range v.graph.Circles {
		v.s.printf("\n%s %s\n", v.s.term.paint(red, "DEADLOCK"), clean(v.circle(c)))
	}
}

// waiting says how a task waits.
func (v *locksView) waiting(w lock.Wait) string {
	var list []string
	if w.Spins {
		list = append(list, fmt.Sprintf("spins on CPU %d", w.Task.CPU))
	} else if d, ok := v.finder.Waiting(w.Task); ok {
		list = append(list, formatSeconds(d))
	}
	if w.Mode != "" {
		list = append(list, "to "+string(w.Mode))
	}
	if w.In != "" {
		list = append(list, "in "+w.In)
	}
	if !w.Sure {
		list = append(list, "not sure: its stack is not reliable")
	}
	return strings.Join(list, ", ")
}

func formatSeconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// doing says what the holder of a lock does.
func (v *locksView) doing(t *kernel.Task) string {
	if w, ok := v.graph.WaitOf(t.Addr); ok {
		return fmt.Sprintf("waits itself: %s %s", w.Kind, lock.Name(v.k, w.Lock))
	}
	trace := v.u.Task(t)
	at := ""
	for i := range trace.Frames {
		if f := &trace.Frames[i]; f.Symbol.Name != "" && !lock.Sleeping(f.Symbol.Name) {
			at = " in " + f.Name()
			break
		}
	}
	if t.OnCPU {
		return fmt.Sprintf("runs on CPU %d%s", t.CPU, at)
	}
	if d, ok := v.finder.Waiting(t); ok {
		return fmt.Sprintf("%s, off its CPU for %s%s", t.State, formatSeconds(d), at)
	}
	return t.State + at
}

// circle words a deadlock.
func (v *locksView) circle(c []lock.Wait) string {
	var b strings.Builder
	name := func(t *kernel.Task) string { return fmt.Sprintf("%s (pid %d)", t.Comm, t.PID) }
	for i, w := range c {
		if i == 0 {
			b.WriteString(name(w.Task) + " waits")
		}
		next := c[(i+1)%len(c)].Task
		fmt.Fprintf(&b, " for the %s %s, held by %s", w.Kind, lock.Name(v.k, w.Lock), name(next))
		if i+1 < len(c) {
			b.WriteString(", which waits")
		}
	}
	return b.String()
}

// tree prints the graph: the holders that wait for nothing themselves, the locks whose
// holder is not known, and one of each circle, and behind each who waits for it.
func (v *locksView) tree() {
	if len(v.graph.Locks) == 0 {
		v.s.printf("No task waits for a lock.\n")
		return
	}
	held := map[kernel.Addr][]*lock.Lock{}
	for _, l := range v.graph.Locks {
		if l.Holder != nil {
			held[l.Holder.Addr] = append(held[l.Holder.Addr], l)
		}
	}
	done := map[*lock.Lock]bool{}
	var show func(l *lock.Lock, depth int)
	show = func(l *lock.Lock, depth int) {
		const deepest = 64
		indent := strings.Repeat("  ", min(depth, deepest))
		again := ""
		if done[l] {
			again = "  (see above)"
		}
		v.s.printf("%s%s %s%s\n", indent, l.Kind, lock.Name(v.k, l.Addr), again)
		if done[l] {
			return
		}
		done[l] = true
		for _, w := range l.Waits {
			v.s.printf("%s  <- %s (pid %d)  %s\n", indent, clean(w.Task.Comm), w.Task.PID, v.waiting(w))
			for _, next := range held[w.Task.Addr] {
				show(next, depth+2)
			}
		}
	}
	root := func(title string, l *lock.Lock) {
		v.s.printf("%s\n", v.s.term.paint(bold, clean(title)))
		show(l, 1)
	}
	for _, l := range v.graph.Locks {
		switch {
		case l.Holder == nil:
			title := "holder not known"
			if l.State != "" {
				title += ": " + l.State
			}
			root(title, l)
		default:
			if _, waits := v.graph.WaitOf(l.Holder.Addr); !waits {
				root(fmt.Sprintf("%s (pid %d)  %s", l.Holder.Comm, l.Holder.PID, v.doing(l.Holder)), l)
			}
		}
	}
	for _, l := range v.graph.Locks {
		if !done[l] && l.Holder != nil {
			root(fmt.Sprintf("%s (pid %d)  in a deadlock", l.Holder.Comm, l.Holder.PID), l)
		}
	}
}

type lockJSON struct {
	Kind    string         `json:"kind"`
	Lock    hex            `json:"lock"`
	Symbol  string         `json:"symbol"` // "" when it is no variable
	State   string         `json:"state"`
	Holder  *taskRef       `json:"holder"` // null when nobody is known to hold it
	Doing   string         `json:"holder_doing,omitempty"`
	Waiters []lockWaitJSON `json:"waiters"`
}

type lockWaitJSON struct {
	taskRef
	State  string   `json:"state"`
	Mode   string   `json:"mode"` // "read", "write" or ""
	Waited *float64 `json:"waited_s"`
	Spins  bool     `json:"spins"`
	In     string   `json:"in"`
	From   string   `json:"from"`
	Sure   bool     `json:"sure"`
}

type circleJSON struct {
	taskRef
	Waits hex `json:"waits_for"`
}

func (v *locksView) json() error {
	locks, circles := []lockJSON{}, [][]circleJSON{}
	for _, l := range v.graph.Locks {
		j := lockJSON{Kind: l.Kind.String(), Lock: hex(l.Addr), State: l.State, Holder: refTo(l.Holder)}
		if sym, off, ok := v.k.SymbolAt(l.Addr); ok && !sym.IsCode() && off < 1<<16 {
			j.Symbol = v.k.Name(l.Addr)
		}
		if l.Holder != nil {
			j.Doing = v.doing(l.Holder)
		}
		for _, w := range l.Waits {
			wait := lockWaitJSON{*refTo(w.Task), w.Task.State, string(w.Mode), nil, w.Spins, w.In, w.From, w.Sure}
			if d, ok := v.finder.Waiting(w.Task); ok {
				seconds := d.Seconds()
				wait.Waited = &seconds
			}
			j.Waiters = append(j.Waiters, wait)
		}
		locks = append(locks, j)
	}
	for _, c := range v.graph.Circles {
		var list []circleJSON
		for _, w := range c {
			list = append(list, circleJSON{*refTo(w.Task), hex(w.Lock)})
		}
		circles = append(circles, list)
	}
	return v.s.writeJSON(struct {
		Locks     []lockJSON     `json:"locks"`
		Deadlocks [][]circleJSON `json:"deadlocks"`
		Missing   []string       `json:"missing,omitempty"`
	}{locks, circles, v.s.missing()})
}
