package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNoKernel is the error for a directory that holds no kernel.
var ErrNoKernel = errors.New("no kernel")

// Kernel is a kernel that a lab can boot.
type Kernel struct {
	Release string // uname -r
	Image   string // path of the bzImage
	Modules string // path of lib/modules/RELEASE
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
					found = &Kernel{Release: release, Image: image, Modules: dir}
				}
			}
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w in %s: expected lib/modules/RELEASE and boot/vmlinuz-RELEASE", ErrNoKernel, root)
	}
	return found, nil
}
