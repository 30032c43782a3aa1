package vmcore

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// fileKinds are files that are offered as dumps and are none, by the bytes at
// an offset.
var fileKinds = []struct {
	off      int
	magic    string
	is, hint string
}{
	{0, "\x1f\x8b", "a gzip-compressed file", "decompress it first (gunzip)"},
	{0, "\xfd7zXZ\x00", "an xz-compressed file", "decompress it first (unxz)"},
	{0, "\x28\xb5\x2f\xfd", "a zstd-compressed file", "decompress it first (unzstd)"},
	{0, "BZh", "a bzip2-compressed file", "decompress it first (bunzip2)"},
	{0, "\x04\x22\x4d\x18", "an lz4-compressed file", "decompress it first (unlz4)"},
	{0, "\x89LZO\x00", "an lzop-compressed file", "decompress it first (lzop -d)"},
	{0, "PK\x03\x04", "a zip archive", "unpack it first"},
	{0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"},
	{257, "ustar", "a tar archive", "unpack it first"},
	{0, "!<arch>\n", "an ar archive or Debian package", ""},
	{0, "\xed\xab\xee\xdb", "an RPM package", ""},
	{0, "QFI\xfb", "a qcow2 disk image", "the dump may be a file inside it, in /var/crash"},
	{0, "KDMV", "a VMware disk image", "the dump may be a file inside it, in /var/crash"},
	{0, "# Disk DescriptorFile", "a VMware disk description", ""},
	{0, "\xd2\xbe\xd2\xbe", "a VMware suspended state", "convert it with vmss2core -M"},
	{0, "\xd0\xbe\xd2\xbe", "a VMware snapshot state", "convert it with vmss2core -M"},
	{0, "\xd1\xba\xd1\xba", "a VMware memory image", "convert it with vmss2core -M"},
	{0, "LibvirtQemudSave", "a libvirt save file", "use virsh dump --memory-only instead"},
	{0, "LibvirtQemudPart", "an unfinished libvirt save file", "use virsh dump --memory-only instead"},
	{0, "QEVM", "a QEMU migration stream", "use dump-guest-memory instead"},
	{0, "PAGEDU64", "a Windows crash dump (MEMORY.DMP)", ""},
	{0, "PAGEDUMP", "a 32-bit Windows crash dump (MEMORY.DMP)", ""},
	{0, "MDMP", "a Windows minidump", ""},
	{0, "hibr", "a Windows hibernation file", ""},
	{0, "HIBR", "a Windows hibernation file", ""},
	{0, "EMiL", "a LiME memory image", "LiME keeps no registers; write a dump with kdump or dump-guest-memory"},
	{0, "AVML", "an AVML memory image", "avml-convert turns it into LiME, not into a dump"},
	{0, "\xed\x23\x8f\x61\x73\x01\x19\xa8", "an LKCD dump", "a format out of use since 2008"},
	{0, "\xa8\x19\x01\x73\x61\x8f\x23\xfd", "an s390 stand-alone dump", "convert it with zgetdump -f elf"},
	{0, "sadump\x00\x00", "an sadump stand-alone dump", "convert it with makedumpfile"},
	{0, "LPKSHHRH", "a systemd journal", ""},
	{0x202, "HdrS", "a Linux boot image (bzImage)", "name the dump; a boot image has nothing of the crash"},
	{0, "070701", "a cpio archive (an initramfs is one)", ""},
	{0, "070702", "a cpio archive (an initramfs is one)", ""},
	{0, "\x9f\xeb\x01\x00", "BTF type information", ""},
	{0, "<!DOCTYPE", "an HTML page", "the download may have failed"},
	{0, "<!doctype", "an HTML page", "the download may have failed"},
	{0, "<html", "an HTML page", "the download may have failed"},
}

// notDump says what a file that starts with head seems to be.
func notDump(name string, head []byte) error {
	e := &NotDumpError{Path: name}
	switch {
	case len(head) == 0:
		e.Is, e.Hint = "an empty file", "the disk may have been full when the dump was written"
		return e
	case len(bytes.Trim(head, "\x00")) == 0:
		e.Is, e.Hint = "all zeros where its header should be", "the dump was preallocated but never written, or is a raw memory image"
		return e
	}
	for _, k := range fileKinds {
		if len(head) >= k.off && bytes.HasPrefix(head[k.off:], []byte(k.magic)) {
			e.Is, e.Hint = k.is, k.hint
			return e
		}
	}
	if isText(head) {
		e.Is = "a text file"
		if s := string(head); strings.Contains(s, "Call Trace:") || strings.Contains(s, "RIP: ") || strings.Contains(s, "Linux version ") {
			e.Is, e.Hint = "a text file, it seems a kernel log", "a log alone has no memory to look at"
		}
		return e
	}
	e.Is = "of unknown format"
	e.Hint = "a raw memory image (.vmem, .raw) has no registers and no header; write a dump with kdump or dump-guest-memory"
	return e
}

// isText reports whether p, which may end within a character, is UTF-8 text.
func isText(p []byte) bool {
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n <= 1 {
			return len(p) < utf8.UTFMax
		}
		if r < ' ' && !strings.ContainsRune("\t\n\r\f\x1b\b", r) {
			return false
		}
		p = p[n:]
	}
	return true
}
