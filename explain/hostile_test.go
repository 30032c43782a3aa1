package explain_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"inquest/explain"
	"inquest/kernel"
	"inquest/report"
	"inquest/stack"
	"inquest/vmcore"
)

const example = "../testdata/example.kdump"

// memory is the example dump as an ELF core: uncompressed, so that a changed byte
// is a changed byte of the kernel's memory.
type memory struct {
	file []byte
	data int // where the pages begin
}

func uncompress(t testing.TB) memory {
	t.Helper()
	d, err := vmcore.Open(example)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	info, err := d.VMCoreInfo()
	if err != nil {
		t.Fatal(err)
	}
	var notes bytes.Buffer
	for _, n := range append(d.Notes, vmcore.Note{Name: "VMCOREINFO", Desc: []byte(info.Raw)}) {
		binary.Write(&notes, binary.LittleEndian, []uint32{uint32(len(n.Name) + 1), uint32(len(n.Desc)), n.Type})
		for _, part := range [][]byte{append([]byte(n.Name), 0), n.Desc} {
			notes.Write(part)
			notes.Write(make([]byte, -len(part)&3))
		}
	}
	type segment struct {
		Type, Flags                                uint32
		Offset, Vaddr, Paddr, Filesz, Memsz, Align uint64
	}
	segments := []segment{{Type: 4, Filesz: uint64(notes.Len())}}
	var pages bytes.Buffer
	for at, n := range d.PhysRanges() {
		s := segment{Type: 1, Paddr: uint64(at), Offset: uint64(pages.Len()), Filesz: n, Memsz: n}
		buf := make([]byte, n)
		if err := d.ReadPhys(buf, at); err != nil {
			t.Fatal(err)
		}
		pages.Write(buf)
		segments = append(segments, s)
	}
	const ehdr, phdr = 64, 56
	noteAt := uint64(ehdr + phdr*len(segments))
	data := (noteAt + uint64(notes.Len()) + 4095) &^ 4095
	var file bytes.Buffer
	file.WriteString("\x7fELF\x02\x01\x01" + string(make([]byte, 9)))
	binary.Write(&file, binary.LittleEndian, []uint16{4, 62})
	binary.Write(&file, binary.LittleEndian, uint32(1))
	binary.Write(&file, binary.LittleEndian, []uint64{0, ehdr, 0})
	binary.Write(&file, binary.LittleEndian, uint32(0))
	binary.Write(&file, binary.LittleEndian, []uint16{ehdr, phdr, uint16(len(segments)), 0, 0, 0})
	for i, s := range segments {
		if s.Offset += data; i == 0 {
			s.Offset = noteAt
		}
		binary.Write(&file, binary.LittleEndian, s)
	}
	file.Write(notes.Bytes())
	file.Write(make([]byte, int(data)-file.Len()))
	file.Write(pages.Bytes())
	return memory{file.Bytes(), int(data)}
}

// examine runs everything on a dump, and fails when that takes too long or too
// much memory. What it concludes does not matter.
func examine(t testing.TB, file []byte) (findings []explain.Finding) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	defer func() {
		runtime.ReadMemStats(&after)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		if grew := after.TotalAlloc - before.TotalAlloc; grew > 1<<30 {
			t.Errorf("allocated %d MiB", grew>>20)
		}
	}()
	d, err := vmcore.NewReader(vmcore.Part{R: bytes.NewReader(file), Size: int64(len(file)), Name: "test"})
	if err != nil {
		return nil
	}
	defer d.Close()
	k, err := kernel.Open(d)
	if err != nil {
		return nil
	}
	if c, err := explain.New(k); err == nil {
		findings = c.Findings()
		report.Text(io.Discard, c, findings, report.Style{Verbose: true})
		report.JSON(c, findings)
	}
	tasks, _ := k.Tasks()
	for _, tr := range stack.NewUnwinder(k).All(tasks) {
		report.Stack(io.Discard, tr, report.Style{})
	}
	k.Modules()
	return findings
}

// TestUncompressed proves that the tests below begin with a dump that works.
func TestUncompressed(t *testing.T) {
	m := uncompress(t)
	findings := examine(t, m.file)
	if len(findings) == 0 || findings[0].Advisory == nil || findings[0].Advisory.ID != "nf-queue-request-sock" {
		t.Fatalf("findings on the undamaged dump: %+v", findings)
	}
}

// TestDamagedMemory changes the kernel's memory at random: single bytes, words
// that become addresses of something else, whole pages of garbage.
func TestDamagedMemory(t *testing.T) {
	m := uncompress(t)
	runs := 60
	if testing.Short() {
		runs = 10
	}
	for seed := range uint64(runs) {
		r := rand.New(rand.NewPCG(seed, 1))
		examine(t, m.damage(r))
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

func (m memory) damage(r *rand.Rand) []byte {
	file := bytes.Clone(m.file)
	pages := file[m.data:]
	switch r.IntN(3) {
	case 0:
		for range 1 + r.IntN(10_000) {
			pages[r.IntN(len(pages))] ^= 1 << r.IntN(8)
		}
	case 1:
		for range 1 + r.IntN(5_000) {
			from, to := r.IntN(len(pages)/8)*8, r.IntN(len(pages)/8)*8
			copy(pages[to:to+8], pages[from:])
		}
	case 2:
		for range 1 + r.IntN(40) {
			page := r.IntN(len(pages)/4096) * 4096
			for i := range 4096 {
				pages[page+i] = byte(r.Uint32())
			}
		}
	}
	return file
}

func FuzzMemory(f *testing.F) {
	m := uncompress(f)
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		examine(t, m.damage(rand.New(rand.NewPCG(a, b))))
	})
}
