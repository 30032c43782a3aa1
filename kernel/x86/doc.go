// Package x86 knows the x86-64 machine inside a dump: page tables, the register
// file as the kernel and the dump formats store it, and instruction decoding.
//
// It holds nothing of Linux's data structures; those are in package kernel.
// [PageTable.Walk] translates an address, [Decode] decodes one instruction.
package x86
