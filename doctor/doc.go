// Package doctor examines a machine that has not crashed: is its kernel exposed to known
// bugs, is one of them at work, do its packet queues lose packets, and would a crash
// leave a dump?
//
// [Machine] opens the machine that it runs on, or a copy of its files, [File] a dump or a
// kernel's file; [Subject.Examine] runs the [Checks] that apply to it. Each check is one
// file with one value of type [Check].
package doctor
