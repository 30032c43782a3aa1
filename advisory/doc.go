// Package advisory holds known kernel bugs as data: one YAML file each, with the
// stack that the bug leaves, what its code looks like before and after the fix,
// where it was fixed, and what to do until the fix is there.
//
// [All] returns those that ship with Inquest and the user's own. [Advisory.MatchStack] compares a
// crashed stack, [Advisory.CheckCode] a kernel's own code: distributions backport,
// so the version proves nothing, the code does.
package advisory
