package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// flattenedFile is one that holds pieces of data at offsets, ended or not.
func flattenedFile(ended bool, pieces ...any) []byte {
	file := make([]byte, flatHeader)
	copy(file, flatSignature)
	be := binary.BigEndian
	for i := 0; i < len(pieces); i += 2 {
		data := pieces[i+1].(string)
		file = be.AppendUint64(file, uint64(pieces[i].(int)))
		file = be.AppendUint64(file, uint64(len(data)))
		file = append(file, data...)
	}
	if ended {
		file = be.AppendUint64(be.AppendUint64(file, 1<<64-1), 1<<64-1)
	}
	return file
}

func TestUnflatten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump")
	for _, tt := range []struct {
		name string
		file []byte
		want string // "" for an error
	}{
		{"pieces in any order", flattenedFile(true, 6, "world", 0, "hello"), "hello\x00world"},
		{"one over the other", flattenedFile(true, 0, "hello", 0, "j"), "jello"},
		{"cut", flattenedFile(false, 0, "hello"), ""},
		{"cut in a record", flattenedFile(false, 0, "hello")[:flatHeader+18], ""},
		{"negative", flattenedFile(true, -5, "hello"), ""},
		{"not flattened", []byte("KDUMP   "), ""},
	} {
		if err := os.WriteFile(path, tt.file, 0o644); err != nil {
			t.Fatal(err)
		}
		err := unflatten(path)
		got, readErr := os.ReadFile(path)
		switch {
		case readErr != nil:
			t.Error(readErr)
		case tt.want == "" && (err == nil || !bytes.Equal(got, tt.file)):
			t.Errorf("%s: error %v, and the file is touched: %t", tt.name, err, !bytes.Equal(got, tt.file))
		case tt.want != "" && (err != nil || string(got) != tt.want):
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	os.WriteFile(path, []byte("KDUMP   "), 0o644)
	if err := unflatten(path); !errors.Is(err, ErrNotFlattened) {
		t.Errorf("error %v, want %v", err, ErrNotFlattened)
	}
}

func FuzzUnflatten(f *testing.F) {
	f.Add(flattenedFile(true, 6, "world", 0, "hello"))
	f.Fuzz(func(t *testing.T, file []byte) {
		out, err := os.CreateTemp(t.TempDir(), "out")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		writeUnflattened(out, bytes.NewReader(file))
	})
}
