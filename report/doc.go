// Package report writes what package explain found: for people as text for a terminal
// ([Text]), Markdown for a bug tracker ([Markdown]) or a page for a browser ([HTML]),
// and for programs as JSON ([JSON]). [Stack] and [StacksJSON] write stacks alone.
//
// All but the JSON are laid out from one story, into which nothing from the dump comes
// that is not clean: a name or a message in a dump may be anything. It adds no facts
// of its own, except what is at the addresses that a page names.
package report
