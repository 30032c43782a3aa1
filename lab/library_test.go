package lab

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLibraries(t *testing.T) {
	root := t.TempDir()
	interpreter := filepath.Join(root, "lib64/ld.so")
	writeFiles(t, root, map[string][]byte{
		"program":     linkedELF(interpreter, "libdw.so.1", "libc.so.6"),
		"static":      buildELF(""),
		"broken":      linkedELF("", "libnone.so"),
		"lib64/ld.so": buildELF(""),
		// A cycle, as libc and its dynamic linker have it.
		"lib/libdw.so.1":  linkedELF("", "libelf.so.1", "libc.so.6"),
		"lib/libc.so.6":   linkedELF("", "libdw.so.1"),
		"usr/libelf.so.1": linkedELF("", "libc.so.6"),
		"usr/libc.so.6":   []byte("never read: lib comes first"),
	})
	dirs := []string{filepath.Join(root, "lib"), filepath.Join(root, "usr")}
	for _, tt := range []struct {
		program string
		want    []string
	}{
		{"program", []string{"lib64/ld.so", "lib/libdw.so.1", "lib/libc.so.6", "usr/libelf.so.1"}},
		{"static", nil},
	} {
		got, err := libraries(filepath.Join(root, tt.program), dirs)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i], _ = filepath.Rel(root, got[i])
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s needs %q, want %q", tt.program, got, tt.want)
		}
	}
	_, err := libraries(filepath.Join(root, "broken"), dirs)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "broken needs libnone.so") {
		t.Errorf("a missing library: %v", err)
	}
}
