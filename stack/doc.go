// Package stack unwinds kernel stacks from a dump with the ORC tables that the
// kernel carries for itself (Documentation/arch/x86/orc-unwinder.rst).
//
// [NewUnwinder] prepares a kernel; [Unwinder.Task] unwinds one task, wherever it
// was: sleeping, running, in an interrupt, or in the middle of the crash;
// [Unwinder.All] does so for every task. A [Trace] says whether it is reliable, and
// where it is not, why: frames that only a scan of the stack suggests are marked.
package stack
