package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFindHeaders(t *testing.T) {
	stanzas := map[string]string{
		"linux-headers-6.1.0-56-amd64=6.1.192-2": "Package: linux-headers-6.1.0-56-amd64\nVersion: 6.1.192-2\n" +
			"Depends: linux-headers-6.1.0-56-common (= 6.1.192-2), linux-kbuild-6.1 (>= 6.1.192-2), linux-compiler-gcc-12-x86\n",
		"linux-headers-6.1.0-56-common": "Package: linux-headers-6.1.0-56-common\nVersion: 6.1.192-2\nDepends: linux-kbuild-6.1\n",
		"linux-kbuild-6.1":              "Package: linux-kbuild-6.1\nVersion: 6.1.193-1\nDepends: libc6 (>= 2.34)\n",
		"linux-headers-lost":            "Package: linux-headers-lost\nVersion: 1\nDepends: linux-kbuild-9.9\n",
		"linux-headers-virtual":         "",
	}
	show := func(name string) (string, error) {
		if text, ok := stanzas[name]; ok {
			return text, nil
		}
		return "", fmt.Errorf("no %s", name)
	}
	for _, tt := range []struct {
		name, version string
		want          headerPackages
		fails         bool
	}{
		{"linux-headers-6.1.0-56-amd64", "6.1.192-2", headerPackages{
			[]string{"linux-headers-6.1.0-56-amd64=6.1.192-2", "linux-headers-6.1.0-56-common=6.1.192-2", "linux-kbuild-6.1=6.1.193-1"}, "6.1.192-2"}, false},
		{"linux-headers-6.1.0-56-amd64", "6.1.176-1", headerPackages{}, true},
		{"linux-headers-lost", "", headerPackages{}, true},
		{"linux-headers-virtual", "", headerPackages{}, true},
	} {
		got, err := findHeaders(tt.name, tt.version, show)
		if (err != nil) != tt.fails {
			t.Errorf("%s %s: error %v", tt.name, tt.version, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(headerPackages{})); diff != "" && !tt.fails {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestSourcePackage(t *testing.T) {
	for version, want := range map[string]string{
		"6.1.192-2":           "linux-source-6.1=6.1.192-2",
		"6.12.117-1~bpo12+1":  "linux-source-6.12=6.12.117-1~bpo12+1",
		"7.3-1":               "linux-source-7.3=7.3-1",
		"5.10.262-1+deb11u99": "linux-source-5.10=5.10.262-1+deb11u99",
	} {
		if got, err := sourcePackage(version); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", version, got, err, want)
		}
	}
	for _, version := range []string{"", "6", "new"} {
		if got, err := sourcePackage(version); err == nil {
			t.Errorf("%q: %q, want an error", version, got)
		}
	}
}

func TestKernelID(t *testing.T) {
	for _, tt := range []struct{ release, root, want string }{
		{"6.1.0-56-amd64", "/c/linux-image-6.1.0-56-amd64=6.1.192-2", "6.1.0-56-amd64=6.1.192-2"},
		{"7.3.4-amd64", "/c/linux-image-7.3.4-amd64=7.3.4-1~bpo13+1", "7.3.4-amd64=7.3.4-1~bpo13+1"},
		{"6.6.0", "/c/unpacked", "6.6.0"},
		{"6.6.0", "", "6.6.0"},
	} {
		if got := (&Kernel{Release: tt.release, Root: tt.root}).id(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.root, got, tt.want)
		}
	}
}

func TestHeadersCompiler(t *testing.T) {
	path := t.TempDir()
	t.Setenv("PATH", path)
	if err := os.Symlink("/bin/true", filepath.Join(path, "gcc-12")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		config, want, missing string
	}{
		{"CONFIG_X=y\nCONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0\"\n", "gcc-12", ""},
		{"CONFIG_CC_VERSION_TEXT=\"x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0\"\n", "gcc-12", ""},
		{"CONFIG_CC_VERSION_TEXT=\"gcc-14 (Debian 14.2.0-19) 14.2.0\"\n", "", "gcc-14 is not installed: apt-get install gcc-14"},
		{"CONFIG_CC_VERSION_TEXT=\"Debian clang version 16\"\n", "", "gcc is not installed: apt-get install gcc"},
	} {
		root := t.TempDir()
		writeFiles(t, root, map[string][]byte{"usr/src/linux-headers-6.1.0/.config": []byte(tt.config)})
		got, err := headersCompiler(root, "6.1.0")
		if tt.missing != "" {
			if err == nil || err.Error() != tt.missing {
				t.Errorf("%q: error %v, want %q", tt.config, err, tt.missing)
			}
			continue
		}
		if got != tt.want || err != nil {
			t.Errorf("%q: %q, %v, want %q", tt.config, got, err, tt.want)
		}
	}
}

func TestRelocateHeaders(t *testing.T) {
	root := t.TempDir()
	makefile := "usr/src/linux-headers-7.2-amd64/Makefile"
	writeFiles(t, root, map[string][]byte{makefile: []byte("KBUILD_OUTPUT=/usr/src/linux-headers-7.2-amd64\ninclude /usr/src/linux-headers-7.2-common/Makefile\n")})
	if err := relocateHeaders(root, "7.2-amd64"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, makefile))
	if err != nil {
		t.Fatal(err)
	}
	want := "KBUILD_OUTPUT=" + root + "/usr/src/linux-headers-7.2-amd64\ninclude " + root + "/usr/src/linux-headers-7.2-common/Makefile\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestSourceModule(t *testing.T) {
	k := testKernel(t)
	quiet := func(string) {}
	// One that the kernel has, with what it depends on; one that is built in.
	for name, want := range map[string]int{"virtio_blk": 3, "crc16": 0} {
		modules, err := k.sourceModule(t.Context(), t.TempDir(), sourceModule{name: name}, quiet)
		if err != nil || len(modules) != want {
			t.Errorf("%s: %d modules, %v, want %d", name, len(modules), err, want)
		}
	}
	// One that was built before is not built again.
	cache := t.TempDir()
	writeFiles(t, cache, map[string][]byte{"modules/6.1.0-test/lkdtm.ko": []byte("code")})
	t.Setenv("PATH", t.TempDir())
	modules, err := k.sourceModule(t.Context(), cache, lkdtmModule, quiet)
	if err != nil || len(modules) != 1 || string(modules[0].Code) != "code" || modules[0].Name != "lkdtm" {
		t.Errorf("modules %v, %v", modules, err)
	}
	// To build one takes tools.
	var missing *MissingToolError
	if _, err := k.sourceModule(t.Context(), t.TempDir(), lkdtmModule, quiet); !errors.As(err, &missing) || missing.Package != "make" {
		t.Errorf("error %v, want that make is missing", err)
	}
}

func TestKernelConfig(t *testing.T) {
	config := parseConfig("# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_D=2048\nCONFIG_E=\"y\"\nCONFIG_F=n\n")
	if diff := cmp.Diff(kernelConfig{"B": true, "C": true}, config); diff != "" {
		t.Error(diff)
	}
	for _, place := range []string{"boot/config-6.1.0", "lib/modules/6.1.0/config"} {
		root := t.TempDir()
		writeFiles(t, root, map[string][]byte{place: []byte("CONFIG_B=y\n")})
		k := &Kernel{Release: "6.1.0", Image: filepath.Join(root, "boot/vmlinuz-6.1.0"), Modules: filepath.Join(root, "lib/modules/6.1.0")}
		if config, err := k.config(); err != nil || !config["B"] {
			t.Errorf("%s: %v, %v", place, config, err)
		}
	}
	t.Chdir(t.TempDir())
	writeFiles(t, ".", map[string][]byte{"config": []byte("CONFIG_B=y\n")})
	for _, k := range []*Kernel{{}, {Release: "6.1.0", Image: "/nowhere/vmlinuz", Modules: "/nowhere"}} {
		if config, err := k.config(); config != nil || err != nil {
			t.Errorf("of a kernel without one: %v, %v", config, err)
		}
	}
}
