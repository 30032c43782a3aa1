package vmcore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Open a dump, look at what it is, and read memory.
func ExampleOpen() {
	// Any dump will do; this one is written for the example.
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "vmcore")
	os.WriteFile(path, exampleDump(), 0o600)

	d, err := Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()
	fmt.Println(d.Format, d.Compression, d.Release)

	var word [8]byte
	if err := d.ReadPhys(word[:], 0x1000); err == nil {
		fmt.Printf("%s\n", word)
	}
	if err := d.ReadPhys(word[:], 0x2000); errors.Is(err, ErrExcluded) {
		fmt.Println(err)
	}
	// Output:
	// kdump-compressed zlib 6.1.0-1-amd64
	// in here!
	// read physical 0x2000: page excluded from the dump
}

// exampleDump has one page, at 0x1000; another was left out.
func exampleDump() []byte {
	page := make([]byte, pg)
	copy(page, "in here!")
	return kdumpSpec{codec: flagZlib, maxPFN: 8, pages: map[uint64][]byte{1: page}, excluded: []uint64{2}, release: "6.1.0-1-amd64"}.build()
}
