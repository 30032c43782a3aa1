package lab

import (
	"bytes"
	"compress/gzip"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func compressed(t *testing.T, how string, data []byte) []byte {
	t.Helper()
	if how == "zst" {
		e, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(data, nil)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(data)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// testKernel is a kernel with some modules, and nothing that could boot.
func testKernel(t *testing.T) *Kernel {
	dir := t.TempDir()
	writeFiles(t, dir, map[string][]byte{
		"modules.builtin":                                []byte("kernel/lib/crc16.ko\nkernel/crypto/crc32c-generic.ko\n"),
		"kernel/drivers/virtio/virtio.ko":                moduleELF(),
		"kernel/drivers/virtio/virtio_ring.ko.gz":        compressed(t, "gz", moduleELF("virtio")),
		"kernel/drivers/virtio/virtio-pci.ko.zst":        compressed(t, "zst", moduleELF("virtio", "virtio_ring", "virtio_pci_modern_dev")),
		"kernel/drivers/virtio/virtio_pci_modern_dev.ko": moduleELF(),
		"kernel/drivers/block/virtio_blk.ko":             moduleELF("virtio_ring", "virtio", "crc32c-generic"),
		"kernel/drivers/block/orphan.ko":                 moduleELF("gone"),
		"kernel/drivers/block/packed.ko.xz":              []byte("not read without xz"),
		"kernel/loop/a.ko":                               moduleELF("b"),
		"kernel/loop/b.ko":                               moduleELF("a"),
		"kernel/bad/text.ko":                             []byte("no ELF file, but long enough"),
		"kernel/bad/bare.ko":                             buildELF(""),
	})
	return &Kernel{Release: "6.1.0-test", Image: dir + "/modules.builtin", Modules: dir}
}

func TestLoadOrder(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // without xz
	k := testKernel(t)
	for _, tt := range []struct {
		names []string
		want  string // names in order
		err   string
	}{
		{nil, "", ""},
		{[]string{"virtio_blk"}, "virtio virtio_ring virtio_blk", ""},
		{[]string{"virtio_pci", "virtio-blk"}, "virtio virtio_ring virtio_pci_modern_dev virtio_pci virtio_blk", ""},
		{[]string{"virtio_blk", "virtio_blk", "virtio"}, "virtio virtio_ring virtio_blk", ""},
		{[]string{"crc16", "crc32c_generic"}, "", ""},
		{[]string{"a"}, "b a", ""},
		{[]string{"nosuch"}, "", "kernel 6.1.0-test has no module nosuch"},
		{[]string{"orphan"}, "", "has no module gone, which orphan depends on"},
		{[]string{"text"}, "", "module text: bad magic number"},
		{[]string{"bare"}, "", "module bare: no section .modinfo"},
		{[]string{"packed"}, "", "xz is not installed: apt-get install xz-utils"},
	} {
		order, err := k.LoadOrder(t.Context(), tt.names...)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("LoadOrder(%q): error %v, want %q", tt.names, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("LoadOrder(%q): %v", tt.names, err)
		}
		var got []string
		for _, m := range order {
			got = append(got, m.Name)
			if !bytes.HasPrefix(m.Code, []byte("\x7fELF")) {
				t.Errorf("module %s is not decompressed", m.Name)
			}
		}
		if !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("LoadOrder(%q) = %q, want %q", tt.names, got, tt.want)
		}
	}
	var missing *MissingToolError
	if _, err := k.LoadOrder(t.Context(), "packed"); !errors.As(err, &missing) || missing.Package != "xz-utils" {
		t.Errorf("without xz: %v", err)
	}
}

func FuzzModuleDepends(f *testing.F) {
	f.Add(moduleELF("virtio", "virtio_ring"))
	f.Add(moduleELF())
	f.Add(buildELF("/lib/ld.so"))
	f.Fuzz(func(t *testing.T, code []byte) {
		depends, err := moduleDepends(code)
		if err != nil && depends != nil {
			t.Errorf("both %q and error %v", depends, err)
		}
	})
}
