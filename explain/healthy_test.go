package explain

import (
	"path/filepath"
	"testing"

	"inquest/kernel"
	"inquest/vmcore"
)

// healthy calls f with a case for each task of a dump that did not crash: as if its
// stack were the crashed one, with nothing said of why. It returns how many there were.
func healthy(t testing.TB, path string, f func(c *Case)) int {
	t.Helper()
	d, err := vmcore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	k, err := kernel.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	real, err := New(k)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := k.Tasks()
	if err != nil && len(tasks) == 0 {
		t.Fatal(err)
	}
	n := 0
	for _, trace := range real.Unwinder.All(tasks) {
		if len(trace.Frames) == 0 || real.Crash != nil && real.Crash.Task != nil && trace.Task.Addr == real.Crash.Task.Addr {
			continue
		}
		c := &Case{Kernel: k, Unwinder: real.Unwinder, heap: real.heap, Crash: &Crash{CPU: trace.CPU, Task: trace.Task, Trace: trace}}
		f(c)
		n++
	}
	return n
}

// TestHealthyStacks takes the stacks of tasks that nothing had happened to: no type
// confusion may be found there, and nothing that would count as one if the crash had
// come by way of any of the pointers on them.
func TestHealthyStacks(t *testing.T) {
	dumps, err := filepath.Glob("../testdata/*.kdump")
	if err != nil || len(dumps) == 0 {
		t.Fatalf("no dumps: %v", err)
	}
	tasks, promises := 0, 0
	for _, path := range dumps {
		tasks += healthy(t, path, func(c *Case) {
			for _, f := range Confusion.Run(c) {
				t.Errorf("%s: pid %d %s: %s", path, c.Crash.Task.PID, c.Crash.Task.Comm, f.Title)
			}
			promises += len(c.promises())
			for _, s := range suspects(c) {
				t.Errorf("%s: pid %d %s: %s", path, c.Crash.Task.PID, c.Crash.Task.Comm, s)
			}
		})
	}
	t.Logf("%d tasks, %d pointers to structs", tasks, promises)
	if tasks < 200 || promises < 80 {
		t.Errorf("only %d tasks with %d pointers: the test sees too little", tasks, promises)
	}
}

// suspects are the promises that would be called confusions if a bad pointer had been
// read by way of them.
func suspects(c *Case) []string {
	var all []string
	for i := range c.promises() {
		p := &c.promises()[i]
		if m, ok := c.computedFrom(p); ok {
			all = append(all, p.typ.Name+" in "+p.functions()+" computed from a "+m.typ.Name+" in "+m.obj.Cache.Name)
		}
		obj, ok := c.slabObject(p.ptr)
		if !ok {
			continue
		}
		if really, why := c.structOf(obj.Cache); really != nil {
			if _, ok := c.otherStruct(p, obj, &lead{at: p.ptr}, really, why); ok {
				all = append(all, p.typ.Name+" in "+p.functions()+" is a "+really.Name+": "+why)
			}
		}
		if broken, whole := c.contradictions(p); uint64(p.typ.Size) <= obj.Size-obj.Offset && len(broken) >= 2 && len(broken) > whole {
			all = append(all, p.typ.Name+" in "+p.functions()+" contradicts itself: "+broken[0])
		}
	}
	return all
}
