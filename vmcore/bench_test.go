package vmcore

import (
	"math/rand/v2"
	"testing"
)

// memoryPage is as compressible as kernel memory is: pointers with common upper
// halves, small integers, zeros.
func memoryPage(pfn uint64) []byte {
	r := rand.New(rand.NewPCG(pfn, 5))
	p := make([]byte, 0, pg)
	for len(p) < pg {
		switch r.IntN(4) {
		case 0:
			v := 0xffff888000000000 | uint64(r.Uint32())&^7
			for i := range 8 {
				p = append(p, byte(v>>(8*i)))
			}
		case 1:
			p = append(p, byte(r.IntN(64)), 0, 0, 0, 0, 0, 0, 0)
		default:
			p = append(p, make([]byte, 8)...)
		}
	}
	return p[:pg]
}

func memoryPages(n uint64) map[uint64][]byte {
	pages := make(map[uint64][]byte)
	for pfn := range n {
		pages[pfn] = memoryPage(pfn)
	}
	return pages
}

// openBench opens, from a file, a dump of 256 pages.
func openBench(b *testing.B, codec uint32) *Dump {
	b.Helper()
	if codec == flagLZO {
		// The tests' LZO compresses nothing but its own kind of page.
		pages := make(map[uint64][]byte)
		for pfn := range uint64(256) {
			pages[pfn] = testPage(pfn)
		}
		return openBenchPages(b, codec, pages)
	}
	return openBenchPages(b, codec, memoryPages(256))
}

func openBenchPages(b *testing.B, codec uint32, pages map[uint64][]byte) *Dump {
	b.Helper()
	d, err := Open(writeFile(b, kdumpSpec{codec: codec, maxPFN: 256, pages: pages}.build()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	return d
}

// BenchmarkPage reads pages that are not in the cache.
func BenchmarkPage(b *testing.B) {
	for _, codec := range codecs {
		b.Run(codecName(codec), func(b *testing.B) {
			d := openBench(b, codec)
			buf := make([]byte, pg)
			b.SetBytes(pg)
			b.ReportAllocs()
			var pfn uint64
			for b.Loop() {
				if err := d.ReadPhys(buf, PhysAddr(pfn%256*pg)); err != nil {
					b.Fatal(err)
				}
				pfn++
			}
		})
	}
}

// BenchmarkReadPhys reads eight bytes of a cached page.
func BenchmarkReadPhys(b *testing.B) {
	d := openBench(b, flagZstd)
	buf := make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.ReadPhys(buf, 5*pg+64); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan reads the whole dump, on all processors.
func BenchmarkScan(b *testing.B) {
	for _, codec := range codecs {
		b.Run(codecName(codec), func(b *testing.B) {
			d := openBench(b, codec)
			b.SetBytes(256 * pg)
			for b.Loop() {
				d.Scan("benchmark", func(PhysAddr, []byte) bool { return true })
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	small := writeFile(b, kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true)}.build())
	b.Run("small", func(b *testing.B) { benchmarkOpen(b, small) })
	large := writeLargeDump(b)
	b.Run("1TiB", func(b *testing.B) { benchmarkOpen(b, large) })
	// 64 MiB in records of 16 KiB, as QEMU writes them.
	flat := writeFile(b, flatten(append(inRecords(kdumpSpec{codec: flagZlib, maxPFN: someMaxPFN, pages: somePages(true)}.build(), 1000),
		inRecords(make([]byte, 64<<20), 16<<10)[10:]...), true))
	b.Run("flattened", func(b *testing.B) { benchmarkOpen(b, flat) })
}

func benchmarkOpen(b *testing.B, path string) {
	for b.Loop() {
		d, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		d.Close()
	}
}

func BenchmarkShrink(b *testing.B) {
	d := openBench(b, flagZlib)
	b.SetBytes(256 * pg)
	for b.Loop() {
		if err := Shrink(new(memFile), d, allPages(d)); err != nil {
			b.Fatal(err)
		}
	}
}
