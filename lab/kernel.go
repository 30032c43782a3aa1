package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoKernel is the error for what holds no kernel.
var ErrNoKernel = errors.New("no kernel")

// Kernel is a kernel that a lab can boot.
type Kernel struct {
	Name    string // that it was asked for by; "" if it was not
	Release string // uname -r
	Image   string // path of the bzImage
	Modules string // path of lib/modules/RELEASE; "" if it has none
	Debug   string // path of the vmlinux with debug information; "" if there is none
	Root    string // directory of all this, as it is kept in the cache; "" for a single image
}

// OpenKernel returns the kernel of an unpacked Debian package; of several in one
// directory, the last by name. Up to 6.18 the image is boot/vmlinuz-RELEASE, later it
// lies beside the modules.
func OpenKernel(root string) (*Kernel, error) {
	var found *Kernel
	for _, pattern := range []string{"lib/modules/*", "usr/lib/modules/*"} {
		dirs, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			release := filepath.Base(dir)
			for _, image := range []string{filepath.Join(root, "boot", "vmlinuz-"+release), filepath.Join(dir, "vmlinuz")} {
				if _, err := os.Stat(image); err == nil {
					found = &Kernel{Release: release, Image: image, Modules: dir, Root: root}
				}
			}
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w in %s: expected lib/modules/RELEASE and boot/vmlinuz-RELEASE", ErrNoKernel, root)
	}
	debug := filepath.Join(root, debugFile(found.Release))
	if _, err := os.Stat(debug); err == nil {
		found.Debug = debug
	}
	return found, nil
}

// debugFile is where Debian's debug package has the vmlinux of a release.
func debugFile(release string) string { return "usr/lib/debug/boot/vmlinux-" + release }

// OpenImage returns the kernel of a bzImage, or of the vmlinux of a kernel with
// CONFIG_PVH. Modules is the directory of its modules, or "" if all that a scenario
// needs is built in.
func OpenImage(image, modules string) (*Kernel, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	release, err := releaseOf(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	if modules != "" {
		if info, err := os.Stat(modules); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, fmt.Errorf("modules: %s is not a directory", modules)
		}
	}
	return &Kernel{Release: release, Image: image, Modules: modules}, nil
}

// releaseOf reads the release of a bzImage or a vmlinux.
func releaseOf(f io.ReaderAt) (string, error) {
	// The setup header of Documentation/arch/x86/boot.rst: boot_flag at 0x1fe,
	// "HdrS" at 0x202, and kernel_version at 0x20e, a pointer less 0x200 to the
	// release and more.
	const header, magicAt, versionAt = 0x210, 0x202, 0x20e
	head := make([]byte, header)
	if _, err := f.ReadAt(head, 0); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoKernel, err)
	}
	switch {
	case string(head[magicAt:magicAt+4]) == "HdrS":
		text := make([]byte, 256)
		at := int64(binary.LittleEndian.Uint16(head[versionAt:])) + 0x200
		n, err := f.ReadAt(text, at)
		if n == 0 {
			return "", fmt.Errorf("%w: read its version: %w", ErrNoKernel, err)
		}
		return firstWord(text[:n])
	case string(head[:4]) == elf.ELFMAG:
		return releaseOfELF(f)
	}
	return "", fmt.Errorf("%w: neither a bzImage nor a vmlinux", ErrNoKernel)
}

// releaseOfELF finds linux_banner in the read-only data of a vmlinux.
func releaseOfELF(f io.ReaderAt) (string, error) {
	file, err := elf.NewFile(f)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoKernel, err)
	}
	const limit = 256 << 20
	section := file.Section(".rodata")
	if section == nil {
		return "", fmt.Errorf("%w: it has no section .rodata", ErrNoKernel)
	}
	text, err := readAtMost(section.Open(), limit)
	if err != nil {
		return "", fmt.Errorf("%w: .rodata: %w", ErrNoKernel, err)
	}
	_, banner, found := bytes.Cut(text, []byte("Linux version "))
	if !found {
		return "", fmt.Errorf("%w: it does not say which version it is", ErrNoKernel)
	}
	if file.Section(".note.Xen") == nil && !hasPVH(file) {
		return "", fmt.Errorf("%w that QEMU can boot: a vmlinux takes CONFIG_PVH; give its bzImage", ErrNoKernel)
	}
	return firstWord(banner[:min(len(banner), 256)])
}

// hasPVH reports whether there is a note of type XEN_ELFNOTE_PHYS32_ENTRY, by which
// QEMU finds where to begin.
func hasPVH(file *elf.File) bool {
	const header, physEntry = 12, 18
	for _, s := range file.Sections {
		if s.Type != elf.SHT_NOTE {
			continue
		}
		notes, err := readAtMost(s.Open(), 1<<20)
		if err != nil {
			continue
		}
		for len(notes) >= header {
			name, desc := file.ByteOrder.Uint32(notes), file.ByteOrder.Uint32(notes[4:])
			typ := file.ByteOrder.Uint32(notes[8:])
			end := header + (int64(name)+3)&^3 + (int64(desc)+3)&^3
			if typ == physEntry && bytes.HasPrefix(notes[header:], []byte("Xen\x00")) {
				return true
			}
			notes = notes[min(end, int64(len(notes))):]
		}
	}
	return false
}

// firstWord is the release at the beginning of what a kernel says of itself.
func firstWord(text []byte) (string, error) {
	word, _, _ := strings.Cut(string(text), " ")
	if word, _, _ = strings.Cut(word, "\x00"); !safeName(word) {
		return "", fmt.Errorf("%w: its release would be %.40q", ErrNoKernel, word)
	}
	return word, nil
}

// String is the name of the kernel, and its release.
func (k *Kernel) String() string {
	if k.Name == "" || k.Name == k.Release {
		return k.Release
	}
	return k.Name + " (" + k.Release + ")"
}
