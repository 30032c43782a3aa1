package lab

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOpenKernel(t *testing.T) {
	for _, tt := range []struct {
		name    string
		files   []string
		release string
		image   string
	}{
		{"Debian 12", []string{"boot/vmlinuz-6.1.0-56-cloud-amd64", "lib/modules/6.1.0-56-cloud-amd64/modules.builtin"},
			"6.1.0-56-cloud-amd64", "boot/vmlinuz-6.1.0-56-cloud-amd64"},
		{"since 6.19", []string{"usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz"},
			"7.3.4+deb13-cloud-amd64", "usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz"},
		{"modules without an image", []string{"lib/modules/6.1.0/modules.builtin"}, "", ""},
		{"empty", nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range tt.files {
				writeFiles(t, root, map[string][]byte{f: nil})
			}
			k, err := OpenKernel(root)
			if tt.release == "" {
				if !errors.Is(err, ErrNoKernel) {
					t.Errorf("error %v, want %v", err, ErrNoKernel)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if k.Release != tt.release || k.Image != filepath.Join(root, tt.image) || filepath.Base(k.Modules) != tt.release {
				t.Errorf("got %+v", k)
			}
		})
	}
}

// stanzas are what apt-cache shows, cut short.
var stanzas = map[string]string{
	"linux-image-cloud-amd64": `Package: linux-image-cloud-amd64
Version: 6.1.192-2
Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)
Description-en: Linux for x86-64 cloud (meta-package)
 Depends: this is text
`,
	"linux-image-6.1.0-56-cloud-amd64": `Package: linux-image-6.1.0-56-cloud-amd64
Version: 6.1.192-2
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
`,
	"linux-image-7.3.4+deb13-cloud-amd64": `Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: dracut | linux-initramfs-tool, linux-base-7.3.4+deb13-cloud-amd64 (= 7.3.4-1), linux-binary-7.3.4+deb13-cloud-amd64, linux-modules-7.3.4+deb13-cloud-amd64
`,
	"linux-base-7.3.4+deb13-cloud-amd64":    "Package: linux-base-7.3.4+deb13-cloud-amd64\nVersion: 1\n",
	"linux-binary-7.3.4+deb13-cloud-amd64":  "Package: linux-binary-7.3.4+deb13-cloud-amd64\nVersion: 1\nDepends: linux-image-7.3.4+deb13-cloud-amd64\n",
	"linux-modules-7.3.4+deb13-cloud-amd64": "Package: linux-modules-7.3.4+deb13-cloud-amd64\nVersion: 1\n",
	"hello":                                 "Package: hello\nVersion: 2.10\nDepends: libc6\n",
}

func TestKernelPackages(t *testing.T) {
	show := func(name string) (string, error) {
		if text, ok := stanzas[name]; ok {
			return text, nil
		}
		return "", errors.New("no package " + name)
	}
	for _, tt := range []struct {
		name string
		want []string
		err  string
	}{
		{"linux-image-cloud-amd64", []string{"linux-image-6.1.0-56-cloud-amd64=6.1.192-2"}, ""},
		{"linux-image-7.3.4+deb13-cloud-amd64", []string{
			"linux-image-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1", "linux-base-7.3.4+deb13-cloud-amd64=1",
			"linux-binary-7.3.4+deb13-cloud-amd64=1", "linux-modules-7.3.4+deb13-cloud-amd64=1"}, ""},
		{"hello", nil, "package hello neither is a kernel nor depends on one"},
		{"nosuch", nil, "no package nosuch"},
	} {
		got, err := kernelPackages(tt.name, show)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

// fakeTools puts shell scripts of the given names in front of PATH.
func fakeTools(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		writeFiles(t, dir, map[string][]byte{name: []byte("#!/bin/sh\nset -eu\n" + script)})
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

func TestDebianKernel(t *testing.T) {
	downloads := filepath.Join(t.TempDir(), "downloads")
	fakeTools(t, map[string]string{
		"apt-cache": `case $3 in
			linux-image-cloud-amd64) echo "Version: 1"; echo "Depends: linux-image-6.1.0-1-cloud-amd64 (= 1)" ;;
			*) echo "Package: $3"; echo "Version: 6.1.5-1" ;;
		esac`,
		"apt-get":  `echo "$3" >>` + downloads + `; touch kernel.deb`,
		"dpkg-deb": `mkdir -p "$3/boot" "$3/lib/modules/6.1.0-1-cloud-amd64"; touch "$3/boot/vmlinuz-6.1.0-1-cloud-amd64"`,
	})
	cache := t.TempDir()
	for range 2 {
		k, err := debianKernel(t.Context(), cache, "linux-image-cloud-amd64", func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		if k.Release != "6.1.0-1-cloud-amd64" {
			t.Errorf("release %s", k.Release)
		}
	}
	if text, _ := os.ReadFile(downloads); string(text) != "linux-image-6.1.0-1-cloud-amd64=6.1.5-1\n" {
		t.Errorf("downloads: %q, want one", text)
	}
	entries, err := os.ReadDir(filepath.Join(cache, "kernels"))
	if err != nil || len(entries) != 1 {
		t.Errorf("the cache holds %v, want one directory (%v)", entries, err)
	}
}

func TestDebianKernelUnknown(t *testing.T) {
	fakeTools(t, map[string]string{"apt-cache": `echo "E: No packages found" >&2; exit 100`})
	_, err := debianKernel(t.Context(), t.TempDir(), "linux-image-cloud-amd64", func(string) {})
	if err == nil || !strings.Contains(err.Error(), "No packages found (apt-get update brings the lists of packages)") {
		t.Errorf("error %v", err)
	}
}

func TestMissingTools(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for tool, pkg := range packages {
		_, err := findTool(tool)
		var missing *MissingToolError
		if !errors.As(err, &missing) || missing.Package != pkg {
			t.Errorf("%s: %v, want package %s", tool, err, pkg)
		}
	}
}
