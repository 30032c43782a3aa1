//go:build kernels

package advisory

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"inquest/kernel/image"
)

// OpenImage reads a kernel's image and the modules that the advisories look into.
func OpenImage(t *testing.T, vmlinuz, modules string, all []*Advisory) *image.Image {
	t.Helper()
	img, err := image.Open(vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range all {
		names = append(names, a.Modules()...)
	}
	err = filepath.WalkDir(modules, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _, ok := strings.Cut(d.Name(), ".ko")
		name = strings.ReplaceAll(name, "-", "_")
		if !ok || !slices.Contains(names, name) {
			return nil
		}
		file, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := img.AddModule(name, file); err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}
