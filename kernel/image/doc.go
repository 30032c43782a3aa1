// Package image opens a kernel that does not run: the file that is booted (vmlinuz, a
// bzImage, however it is compressed) or linked (vmlinux), and the modules beside it.
//
// [Open] makes the file a [kernel.Kernel]: the symbol tables and the BTF are in its
// read-only data, as they are in a running kernel's memory, and are found as in a dump.
// [Image.AddModule] links a module file to it, so far that its code can be read. Nothing of
// it knows what a machine made of it while it booted: there are no tasks, no log, and no
// alternatives are patched in.
package image
