// Package lock says who waits for which lock of the kernel, and who holds it.
//
// Start with [New] and [Finder.Wait] for one task, or [Finder.Graph] for all: the locks
// that somebody waits for, their holders, and the circles in which none can go on.
//
// What a task waits for comes from where the kernel notes it (task_struct.blocker,
// blocked_on, pi_blocked_on), or from the arguments of the function that it called for
// the lock, as package stack recovers them. Mutexes, rt_mutexes and rw_semaphores that
// are held for writing know their holder; a spinlock only with CONFIG_DEBUG_SPINLOCK.
package lock
