package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// vmlinux returns the ELF file that a kernel file holds: a bzImage's payload, or the file
// itself, either of them compressed or not.
func vmlinux(data []byte) ([]byte, error) {
	data, err := Decompress(data)
	if err != nil {
		return nil, err
	}
	if payload, ok := bzImagePayload(data); ok {
		if data, err = Decompress(payload); err != nil {
			return nil, err
		}
	}
	if !bytes.HasPrefix(data, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%w: expected a bzImage (vmlinuz) or a vmlinux", ErrNotKernel)
	}
	return data, nil
}

// bzImagePayload finds the compressed kernel in a bzImage by the header for boot loaders
// (Documentation/arch/x86/boot.rst), which says so since protocol 2.08 of Linux 2.6.26.
func bzImagePayload(data []byte) ([]byte, bool) {
	const (
		setupSects    = 0x1f1 // u8, in sectors
		magic         = 0x202
		version       = 0x206 // u16
		payloadOffset = 0x248 // u32, from the protected-mode code on
		payloadLength = 0x24c // u32
		sector        = 512
	)
	if len(data) < payloadLength+4 || string(data[magic:magic+4]) != "HdrS" || binary.LittleEndian.Uint16(data[version:]) < 0x208 {
		return nil, false
	}
	sects := int(data[setupSects])
	if sects == 0 {
		sects = 4 // as loaders do
	}
	at := (sects+1)*sector + int(binary.LittleEndian.Uint32(data[payloadOffset:]))
	length := int(binary.LittleEndian.Uint32(data[payloadLength:]))
	if at >= len(data) {
		return nil, false
	}
	return data[at:min(len(data), at+length)], true
}
