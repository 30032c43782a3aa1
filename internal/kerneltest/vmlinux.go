package kerneltest

import (
	"bytes"

	"github.com/klauspost/compress/gzip"

	"inquest/vmcore"
)

// Vmlinux returns the kernel's image as the file that is linked: an ELF file with a
// segment for it, and one, at 0, as that of per-CPU data is. The machine must have no KASLR.
func (m *Machine) Vmlinux() []byte {
	const ehdr, phdr = 64, 56
	m.build()
	var memory []byte
	for {
		phys, ok := m.Phys(m.Text() + uint64(len(memory)))
		if !ok {
			break
		}
		page := make([]byte, pageSize)
		m.ReadPhys(page, vmcore.PhysAddr(phys))
		memory = append(memory, page...)
	}
	f := make([]byte, pageSize)
	copy(f, "\x7fELF\x02\x01\x01")
	le.PutUint16(f[16:], 2)  // ET_EXEC
	le.PutUint16(f[18:], 62) // EM_X86_64
	le.PutUint32(f[20:], 1)
	le.PutUint64(f[32:], ehdr)
	for i, v := range []uint16{ehdr, phdr, 2, 64} {
		le.PutUint16(f[52+2*i:], v)
	}
	for i, virt := range []uint64{m.Text(), 0} {
		p := f[ehdr+i*phdr:]
		le.PutUint32(p, 1) // PT_LOAD
		for j, v := range []uint64{pageSize, virt, virt - StartKernelMap, uint64(len(memory)), uint64(len(memory))} {
			le.PutUint64(p[8+8*j:], v)
		}
	}
	return append(f, memory...)
}

// Call writes a call of one function at an address in another.
func (m *Machine) Call(at, target uint64) {
	m.Write(at, le.AppendUint32([]byte{0xe8}, uint32(target-at-5)))
}

// BzImage returns a payload as a boot loader wants it, compressed.
func BzImage(payload []byte) []byte {
	const sects, offset = 3, 0x80
	f := make([]byte, (sects+1)*512+offset)
	f[0x1f1] = sects
	copy(f[0x202:], "HdrS\x0f\x02")
	le.PutUint32(f[0x248:], offset)
	packed := Gzip(payload)
	le.PutUint32(f[0x24c:], uint32(len(packed)+4))
	f = append(f, packed...)
	return append(f, 1, 2, 3, 4) // the payload's size, and what comes after it
}

// Gzip compresses.
func Gzip(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}
