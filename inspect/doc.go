// Package inspect judges packets: it decodes them, finds the flows they belong to,
// looks into their payload as far as the rules ask for it, and says what the rules
// say. It knows nothing of where packets come from; package verdict joins it with the
// kernel's queues, and [Replay] with captures.
//
// An [Engine] is made of a rule set ([inquest/inspect/rule]) and bounds on what it
// may hold. Each goroutine that has packets takes a [Worker] and calls
// [Worker.Inspect] for each packet; the [Decision] says what to do with it, and with
// Decided that the same holds for all later packets of the flow, so that the kernel
// may be told and the flow be seen no more. [Engine.Reload] puts other rules in force
// at once, without losing a packet or what is known of the flows.
//
// What a packet passes through is in packages of their own, which may be used without
// this one: packet decodes, flow has the table and puts TCP streams in order, app
// recognises protocols and learns facts, rule compiles and evaluates conditions.
package inspect
