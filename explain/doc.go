// Package explain says what happened to the machine in a dump.
//
// [New] puts a [Case] together: the crash as the log, the registers and the stack
// tell it, checked against each other. [Case.Findings] then runs every [Analyzer]
// and ranks what they found; the first finding is the cause. An analyzer is one
// file and one package-level value, listed in [Analyzers].
//
// A finding carries the evidence it rests on and says how sure it is. Where the
// evidence does not reach, there is no finding.
package explain
