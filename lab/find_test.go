package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// bzImage is the beginning of one.
func bzImage(version string) []byte {
	image := make([]byte, 0x400)
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(image[0x20e:], 0x100) // at 0x300
	copy(image[0x300:], version+"\x00")
	return image
}

func TestOpenImage(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string][]byte{
		"bzImage":   bzImage("6.9.0-mine+ (me@here) #3 SMP"),
		"short":     []byte("HdrS"),
		"nonsense":  bytes.Repeat([]byte("x"), 0x400),
		"nameless":  bzImage(""),
		"bad":       bzImage("../../etc"),
		"modules/a": nil,
	})
	far := bzImage("6.9.0")
	binary.LittleEndian.PutUint16(far[0x20e:], 0xffff)
	writeFiles(t, dir, map[string][]byte{"far": far})
	k, err := OpenImage(filepath.Join(dir, "bzImage"), filepath.Join(dir, "modules"))
	if err != nil || k.Release != "6.9.0-mine+" || k.Modules != filepath.Join(dir, "modules") {
		t.Errorf("%+v, %v", k, err)
	}
	for _, name := range []string{"short", "nonsense", "nameless", "bad", "far"} {
		if k, err := OpenImage(filepath.Join(dir, name), ""); !errors.Is(err, ErrNoKernel) {
			t.Errorf("%s: %+v, %v; want %v", name, k, err, ErrNoKernel)
		}
	}
	for _, modules := range []string{"bzImage", "nowhere"} {
		if _, err := OpenImage(filepath.Join(dir, "bzImage"), filepath.Join(dir, modules)); err == nil {
			t.Errorf("%s is taken for a directory of modules", modules)
		}
	}
}

func TestVmlinux(t *testing.T) {
	note := func(typ uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, 4)
		b = binary.LittleEndian.AppendUint32(b, 8)
		b = binary.LittleEndian.AppendUint32(b, typ)
		return append(append(b, "Xen\x00"...), make([]byte, 8)...)
	}
	const progbits, noteType = 1, 7
	rodata := elfSection{name: ".rodata", typ: progbits, data: []byte("\x00Linux version 6.9.0-pvh (me@here)\n")}
	for _, tt := range []struct {
		name     string
		sections []elfSection
		want     string // release, or what the error says
	}{
		{"with PVH", []elfSection{rodata, {name: ".notes", typ: noteType, data: append(note(6), note(18)...)}}, "6.9.0-pvh"},
		{"without", []elfSection{rodata, {name: ".notes", typ: noteType, data: note(6)}}, "CONFIG_PVH"},
		{"no version", []elfSection{{name: ".rodata", typ: progbits, data: []byte("x")}}, "which version"},
		{"no data", nil, "no section .rodata"},
		{"a note that is too long", []elfSection{rodata, {name: ".notes", typ: noteType, data: bytes.Repeat([]byte{0xff}, 32)}}, "CONFIG_PVH"},
	} {
		release, err := releaseOf(bytes.NewReader(append(buildELF("", tt.sections...), make([]byte, 0x210)...)))
		if release != tt.want && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %q, %v; want %q", tt.name, release, err, tt.want)
		}
	}
}

func FuzzReleaseOf(f *testing.F) {
	f.Add(bzImage("6.9.0"))
	f.Add(buildELF("", elfSection{name: ".rodata", typ: 1, data: []byte("Linux version 6.9.0 x")}))
	f.Fuzz(func(t *testing.T, image []byte) {
		if release, err := releaseOf(bytes.NewReader(image)); err == nil && !safeName(release) {
			t.Errorf("release %q", release)
		}
	})
}

func TestShortNames(t *testing.T) {
	for name, want := range map[string]string{
		"debian":                    "linux-image-cloud-amd64",
		"debian-6.1":                "linux-image-cloud-amd64/bookworm",
		"debian-7.x":                "linux-image-cloud-amd64/sid",
		"debian-trixie":             "linux-image-cloud-amd64/trixie",
		"debian-bookworm-backports": "linux-image-cloud-amd64/bookworm-backports",
		"debian-6.2":                "",
		"debian-":                   "",
		"debian-../x":               "",
		"nfqbug-6.1":                "",
	} {
		got, ok := shortName(name)
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, %t; want %q", name, got, ok, want)
		}
	}
}

// fakeApt plays apt with one kernel, whose version is in a file, and counts downloads.
func fakeApt(t *testing.T) (version, downloads string) {
	dir := t.TempDir()
	version, downloads = filepath.Join(dir, "version"), filepath.Join(dir, "downloads")
	writeFiles(t, dir, map[string][]byte{"version": []byte("1")})
	fakeTools(t, map[string]string{
		"apt-cache": fmt.Sprintf(`v=$(cat %s)
		case $3 in
			linux-image-cloud-amd64) echo "Version: 1"; echo "Depends: linux-image-6.1.0-$v-cloud-amd64 (= 1)" ;;
			linux-image-6.1.0-*) echo "Package: $3"; echo "Version: 6.1.$v" ;;
			*) echo "E: No packages found" >&2; exit 100 ;;
		esac`, version),
		"apt-get": fmt.Sprintf(`echo "$3" >>%s; touch kernel.deb`, downloads),
		"dpkg-deb": fmt.Sprintf(`v=$(cat %s)
		mkdir -p "$3/boot" "$3/lib/modules/6.1.0-$v-cloud-amd64"; touch "$3/boot/vmlinuz-6.1.0-$v-cloud-amd64"`, version),
	})
	return version, downloads
}

func find(t *testing.T, cache, name string) (*Kernel, error) {
	t.Helper()
	return findKernel(t.Context(), cache, name, nil)
}

func TestFindKernel(t *testing.T) {
	version, downloads := fakeApt(t)
	cache := t.TempDir()
	count := func() int {
		text, _ := os.ReadFile(downloads)
		return bytes.Count(text, []byte("\n"))
	}
	for _, name := range []string{"", "debian", "linux-image-cloud-amd64", "linux-image-6.1.0-1-cloud-amd64"} {
		k, err := find(t, cache, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if k.Release != "6.1.0-1-cloud-amd64" || k.Name != firstOf(name, DefaultKernel) {
			t.Errorf("%s: %+v", name, k)
		}
	}
	if count() != 1 {
		t.Errorf("%d downloads, want 1", count())
	}

	// A newer kernel is found a day later; without apt it is the one there was.
	writeFiles(t, filepath.Dir(version), map[string][]byte{"version": []byte("2")})
	if k, err := find(t, cache, "debian"); err != nil || k.Release != "6.1.0-1-cloud-amd64" {
		t.Errorf("within a day: %+v, %v", k, err)
	}
	age := func() {
		alias := aliasOf(cache, "linux-image-cloud-amd64")
		dir, err := os.Readlink(alias)
		if err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-2 * listsAge)
		if err := os.Remove(alias); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dir, alias); err != nil {
			t.Fatal(err)
		}
		if err := lutimes(alias, then); err != nil {
			t.Fatal(err)
		}
	}
	age()
	if k, err := find(t, cache, "debian"); err != nil || k.Release != "6.1.0-2-cloud-amd64" {
		t.Errorf("a day later: %+v, %v", k, err)
	}
	age()
	fakeTools(t, map[string]string{"apt-cache": "echo 'E: no network' >&2; exit 100"})
	var said []string
	k, err := findKernel(t.Context(), cache, "debian", func(step string) { said = append(said, step) })
	if err != nil || k.Release != "6.1.0-2-cloud-amd64" || !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "as it was 2 days ago") }) {
		t.Errorf("without apt: %+v, %v; said %q", k, err, said)
	}
	if _, err := find(t, cache, "linux-image-amd64"); err == nil {
		t.Error("a kernel without apt")
	}
}

func TestFindKernelByPath(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string][]byte{
		"bzImage": bzImage("6.9.0-mine"), "modules/x.ko": nil,
		"root/boot/vmlinuz-5": nil, "root/lib/modules/5/modules.order": nil,
	})
	t.Chdir(dir)
	for name, want := range map[string]Kernel{
		"bzImage":           {Release: "6.9.0-mine", Image: "bzImage"},
		"./bzImage":         {Release: "6.9.0-mine", Image: "./bzImage"},
		"bzImage:modules":   {Release: "6.9.0-mine", Image: "bzImage", Modules: "modules"},
		"root":              {Release: "5", Image: "root/boot/vmlinuz-5", Modules: "root/lib/modules/5", Root: "root"},
		"./modules":         {},
		"/nowhere/bzImage":  {},
		"no-such-kernel":    {},
		"nfqbug":            {},
		"linux/../../etc":   {},
		"debian-6.2":        {},
		"linux-image-x/../": {},
	} {
		k, err := find(t, t.TempDir(), name)
		switch {
		case want.Release == "" && err == nil:
			t.Errorf("%s: %+v", name, k)
		case want.Release != "" && (err != nil || *k != want):
			t.Errorf("%s: %+v, %v; want %+v", name, k, err, want)
		}
	}
	if _, err := find(t, t.TempDir(), "nfqbug-6.2"); err == nil || !strings.Contains(err.Error(), "did you mean nfqbug-6.1") {
		t.Errorf("error %v", err)
	}
}

func TestFetchDebug(t *testing.T) {
	fakeApt(t)
	cache := t.TempDir()
	k, err := find(t, cache, "debian")
	if err != nil {
		t.Fatal(err)
	}
	fakeTools(t, map[string]string{
		"apt-get":  `test "$3" = linux-image-6.1.0-1-cloud-amd64-dbg=6.1.1; touch debug.deb`,
		"dpkg-deb": `mkdir -p usr/lib/debug/boot; echo DWARF >usr/lib/debug/boot/vmlinux-6.1.0-1-cloud-amd64; tar c ./usr`,
	})
	for range 2 {
		if err := k.fetchDebug(t.Context(), cache, func(string) {}); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(k.Debug); err != nil || string(text) != "DWARF\n" {
		t.Errorf("%q, %v", text, err)
	}
	again, err := OpenKernel(k.Root)
	if err != nil || again.Debug != k.Debug {
		t.Errorf("found again: %+v, %v", again, err)
	}
	if entries, err := filepath.Glob(filepath.Join(k.Root, unfinished+"*")); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %q (%v)", entries, err)
	}
	if err := (&Kernel{Release: "5", Root: t.TempDir()}).fetchDebug(context.Background(), cache, func(string) {}); err == nil {
		t.Error("debug information for a kernel of no package")
	}
}
