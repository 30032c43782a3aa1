package explain

import (
	"slices"

	"inquest/kernel"
	"inquest/lock"
)

// Waits is who waits for which lock, on a machine that the findings say hung, with
// their finder, which knows for how long; nil where they do not, or nobody waits.
func (c *Case) Waits(findings []Finding) (*lock.Graph, *lock.Finder) {
	if !slices.ContainsFunc(findings, func(f Finding) bool { return hangs(f.Class) }) {
		return nil, nil
	}
	all, _ := c.Kernel.Tasks() // those that can be read
	var tasks []*kernel.Task
	for _, t := range all {
		if (t.State == "D" || t.OnCPU && !t.Idle) && len(tasks) < maxBlocked {
			tasks = append(tasks, t)
		}
	}
	g, _ := c.locks().Graph(tasks)
	if g == nil || len(g.Locks) == 0 {
		return nil, nil
	}
	return g, c.locks()
}

// hangs reports whether a failure is that something does not go on.
func hangs(class Class) bool {
	switch class {
	case HungTask, Deadlock, SoftLockup, HardLockup, RCUStall:
		return true
	}
	return false
}
