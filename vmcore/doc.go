// Package vmcore opens Linux crash dumps and answers one question: what are the
// bytes at this physical address?
//
// [Open] recognises a dump by its content. It reads kdump-compressed files
// (makedumpfile and QEMU; zlib, lzo, snappy, zstd; whole, split into parts,
// flattened, or cut short by a full disk), ELF cores (/proc/vmcore,
// makedumpfile -E, QEMU and virsh dump-guest-memory) and a running machine's
// /proc/kcore. What the file says about itself is in the exported fields of
// [Dump]; [Dump.ReadPhys] and [Dump.Page] read memory; [Dump.VMCoreInfo] finds
// the kernel's own description of itself. [Shrink] writes a smaller dump that
// holds chosen pages only.
//
// Virtual addresses are the business of package kernel.
//
// A dump is hostile input: it is corrupt by definition, often truncated and
// possibly forged. Whatever a header claims, no more memory is taken than the
// file's real size justifies, and a page that cannot be had is an ordinary
// error that wraps [ErrExcluded], [ErrAbsent] or [ErrCorrupt] and names the
// address.
//
// Opening costs a few reads and no pass over the file (a flattened file alone
// needs its record headers walked); pages are decompressed when first read and
// kept in a bounded cache. A [Dump] is safe for concurrent use, Close excepted.
package vmcore
