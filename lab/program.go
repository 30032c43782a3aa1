package lab

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
)

// BuildGuest compiles inquest/lab/guest/init to a file, without cgo, so that it is static.
// The working directory has to be inside of this module.
func BuildGuest(ctx context.Context, out string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	_, err = runTool(ctx, "", []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS="},
		"go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "inquest/lab/guest/init")
	return err
}

// guestProgram is the program that is the guest's init.
type guestProgram struct {
	code      []byte   // as small as it gets
	libraries []string // of the host, that it needs; none if it is static
}

func newGuest(path string) (*guestProgram, error) {
	code, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !isELF(code) {
		return &guestProgram{code: code}, nil
	}
	needed, err := libraries(path, libraryDirs)
	return &guestProgram{stripped(code), needed}, err
}

// image is an initramfs with the program and nothing else.
func (g *guestProgram) image() (*Initramfs, error) {
	image := &Initramfs{Guest: g.code}
	return image, image.addLibraries(g.libraries)
}

func isELF(code []byte) bool {
	return len(code) >= elfHeader && string(code[:len(elf.ELFMAG)]) == elf.ELFMAG
}

const elfHeader = 64 // bytes, of a 64-bit file

// stripped cuts off what is behind the last segment of a 64-bit ELF file: symbols and
// debug information, which make up a third of what the Go compiler leaves, and the
// table of sections. What it does not understand it leaves alone.
func stripped(program []byte) []byte {
	const (
		typeAt, phoffAt, shoffAt, phentAt, phnumAt, shnumAt, shstrAt = 0, 32, 40, 54, 56, 60, 62
		entry, offsetAt, sizeAt                                      = 56, 8, 32
	)
	le := binary.LittleEndian
	if elf.Class(program[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(program[elf.EI_DATA]) != elf.ELFDATA2LSB ||
		le.Uint16(program[phentAt:]) != entry {
		return program
	}
	start, count := le.Uint64(program[phoffAt:]), uint64(le.Uint16(program[phnumAt:]))
	size := uint64(len(program))
	end := start + count*entry
	if start > size || end > size {
		return program
	}
	for h := program[start:end]; len(h) > 0; h = h[entry:] {
		if elf.ProgType(le.Uint32(h[typeAt:])) == elf.PT_LOAD {
			offset, length := le.Uint64(h[offsetAt:]), le.Uint64(h[sizeAt:])
			if offset > size || length > size-offset {
				return program
			}
			end = max(end, offset+length)
		}
	}
	short := append([]byte(nil), program[:end]...)
	le.PutUint64(short[shoffAt:], 0)
	le.PutUint16(short[shnumAt:], 0)
	le.PutUint16(short[shstrAt:], 0)
	return short
}
