// Package kerneltest builds small kernels for tests: memory, page tables, symbol
// tables, BTF and a few of Linux's structures, in an ELF core that package vmcore
// opens.
//
// [New] makes an empty machine; [Machine.Alloc] and the Write methods fill its
// memory; [Machine.Symbol], [Machine.Types] and [Machine.Info] describe it, and
// [Machine.Dump] is the dump. [Linux] makes one that has a bit of everything.
//
// It is no simulation: what a test does not ask for is not there.
package kerneltest
