// Package report writes what package explain found, for people ([Text], [Stack])
// and for programs ([JSON], [StacksJSON]). It adds no facts of its own.
package report
