// Package flow keeps track of flows and puts TCP streams in order, in memory that is
// bounded whatever is sent.
//
// A [Table] finds the flow that a packet belongs to, in either direction, tells how
// far it has come, and forgets it after the timeout of its state. When it is full a
// flow has to go, and those that cost an attacker nothing go first: of connections
// that a SYN flood opens there are many, and all of them give way before one
// established connection does.
//
// A [Stream] puts the segments of one direction in order and hands them to a
// [Reader]: without copying those that come in order, and letting others wait within
// [Limits]. What several segments say differently is settled by a [Policy]; what is
// never seen is reported as a gap, never silently joined.
//
// Putting IP fragments together is left to the kernel: wherever connection tracking
// is on, nf_defrag has done it before a packet is queued. Fragments other than the
// first have no ports and so belong to no flow here.
//
// Times are nanoseconds of any clock that does not run backwards, passed in by the
// caller.
package flow
