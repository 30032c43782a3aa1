// Package console reads what a Linux kernel wrote about its own trouble: a console
// log, dmesg(1) in any of its styles, a journal or syslog file, pstore records, a
// netconsole capture, vmcore-dmesg.txt, the output of crash(8)'s log and bt.
//
// [Read] reads such a text as a stream, in bounded memory however long it is, and
// returns a [Log]: every [Report] of trouble with its registers, stacks and modules
// taken apart. What the reports mean is not decided here.
//
// x86-64 and arm64 are read whole; of i386, arm, ppc64, s390, riscv, mips and
// loongarch, the opening lines, the program counter and the call traces.
package console
