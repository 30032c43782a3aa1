// Package lab makes kernels crash in virtual machines, and keeps the dumps.
//
// Begin with [FindKernel], which fetches or builds a kernel by its name, and give it to
// [Run] in an [Experiment]: which [Scenario] is to happen, and which dumps to take.
// Nothing needs root, and nothing is installed.
//
//	k, err := lab.FindKernel(ctx, "debian-6.1", nil)
//	if err != nil { … }
//	sysrq, err := lab.FindScenario("sysrq")
//	if err != nil { … }
//	result, err := lab.Run(ctx, lab.Experiment{
//		Scenario: sysrq,
//		Kernel:   k,
//		Dir:      "sysrq.lab",
//		QEMU:     []string{lab.FormatELF},
//	})
//
// The directory then holds the dumps, console.log, report.jsonl (what the guest said
// of itself) and scenario.json (the [Result]). The result has the truth about the
// crash, from the guest itself: which task did it, which others there were, and the
// kernel's own unwinding of those that slept.
//
// A guest is a bzImage and an initramfs that this package writes, whose only program
// has package inquest/lab/guest for its main: it has no shell and no file system. A dump is taken from
// outside, by QEMU's dump-guest-memory, or from inside, by a capture kernel that kexec
// starts in memory set aside with crashkernel=, as a real machine does it; makedumpfile
// and the libraries it needs are those of the host.
//
// QEMU, and for some scenarios makedumpfile, have to be installed. The error for a
// program that is missing is a [MissingToolError], which names its Debian package.
//
// This package's own tests boot kernels when built with the tag "qemu":
//
//	go test -tags qemu -run 'QEMU|Kdump' ./lab
package lab
