package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestMakeSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump")
	text := make([]byte, 100*sparseBlock+7)
	for _, at := range []int{0, 3*sparseBlock + 5, 99 * sparseBlock, len(text) - 1} {
		text[at] = 1
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := makeSparse(path); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the file reads otherwise now (%v)", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 20*sparseBlock {
		t.Errorf("it takes %d bytes on disk", used)
	}
}
