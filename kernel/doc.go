// Package kernel is the Linux kernel inside a dump: its address space, symbols,
// types, modules, CPUs, tasks and log, all taken from the dumped memory itself.
//
// Start with [Open], then ask: [Kernel.Lookup] and [Kernel.SymbolAt] for symbols,
// [Kernel.Object] for a typed object whose members are read by name,
// [Kernel.Tasks], [Kernel.Modules], [Kernel.Log]. [Kernel.List], [Kernel.RBTree],
// [Kernel.XArray] and [Kernel.IDR] walk the kernel's own structures.
//
// Symbols need no types and the log needs neither, so a kernel without BTF (before
// 5.2) still has both; what is read by member name then fails with [ErrNoBTF].
//
// Which members a struct has, not a version number, decides which way a kernel is
// read: distributions backport. Everything that a dump claims is checked: walks are
// bounded, sizes are limited, and memory that is not in the dump is an error value
// that names the address.
//
// The package holds no opinion on what went wrong; that is package explain.
package kernel
