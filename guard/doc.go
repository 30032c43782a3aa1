// Package guard shields a machine whose kernel releases request sockets that waited in
// a packet queue as full ones (advisory nf-queue-request-sock), and cannot be replaced
// by one that does not.
//
// By rule: [ApplyRules] keeps SYN/ACKs that the machine makes from ever being queued. By
// hook: a kernel module, whose source is [Module], gives the references back the right
// way; [Build] compiles it, [Load] loads it, [ReadHook] says what it saved.
//
// Whether there is anything to shield is [Exposed]'s to say, for this package and for
// all others.
package guard
