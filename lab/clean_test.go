package lab

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lutimes sets the age of a symbolic link.
func lutimes(path string, when time.Time) error {
	times := []unix.Timespec{unix.NsecToTimespec(when.UnixNano()), unix.NsecToTimespec(when.UnixNano())}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
}

// testCache has a kernel with a name, one without, one in use, and what was
// interrupted, or is not: it is locked.
func testCache(t *testing.T) (cache string) {
	cache = t.TempDir()
	files := map[string][]byte{
		"kernels/unfinished-1/half.deb":     []byte("half"),
		"kernels/unfinished-2/under-way":    nil,
		"build/k_1/source/Makefile":         []byte("all:"),
		"build/k_2/source/Makefile":         nil,
		"build/k_1.lock":                    nil,
		"build/k_2.lock":                    nil,
		"apt/sid/lists/x":                   []byte("Package: x"),
		"kernels/named=1/unfinished-3/half": nil,
		"modules/6.1=1/lkdtm.ko":            nil,
	}
	for _, name := range []string{"named", "nameless", "used"} {
		files["kernels/"+name+"=1/boot/vmlinuz-"+name] = []byte("image")
		files["kernels/"+name+"=1/lib/modules/"+name+"/modules.order"] = nil
	}
	writeFiles(t, cache, files)
	if err := rememberKernel(cache, "linux-image-x", filepath.Join(cache, "kernels", "named=1")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"kernels/used=1", "kernels/unfinished-2", "build/k_2.lock"} {
		unlock, err := tryLock(filepath.Join(cache, path))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(unlock)
	}
	return cache
}

func TestClean(t *testing.T) {
	for _, tt := range []struct {
		name    string
		c       Cleaning
		removed []string
		kept    []string
	}{
		{"what nobody needs", Cleaning{},
			[]string{"build/k_1", "kernels/named=1/unfinished-3", "kernels/nameless=1", "kernels/unfinished-1"},
			[]string{"build/k_2", "kernels/unfinished-2", "kernels/used=1"}},
		{"all", Cleaning{All: true},
			[]string{"apt/sid", "build/k_1", "kernels/named=1", "kernels/nameless=1", "kernels/unfinished-1", "modules/6.1=1", "names/linux-image-x"},
			[]string{"build/k_2", "kernels/unfinished-2", "kernels/used=1"}},
		{"by name", Cleaning{Kernels: []string{"linux-image-x"}}, []string{"kernels/named=1"}, nil},
		{"by release", Cleaning{Kernels: []string{"nameless", "used"}}, []string{"kernels/nameless=1"}, []string{"kernels/used=1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cache := testCache(t)
			dry := tt.c
			dry.DryRun = true
			would, err := dry.clean(t.Context(), cache)
			if err != nil {
				t.Fatal(err)
			}
			list, err := tt.c.clean(t.Context(), cache)
			if err != nil {
				t.Fatal(err)
			}
			var removed, kept []string
			for _, g := range list {
				path, err := filepath.Rel(cache, g.Path)
				if err != nil {
					t.Fatal(err)
				}
				_, err = os.Lstat(g.Path)
				switch {
				case g.Kept == "" && errors.Is(err, os.ErrNotExist):
					removed = append(removed, path)
				case g.Kept != "" && err == nil:
					kept = append(kept, path)
				default:
					t.Errorf("%+v: %v", g, err)
				}
			}
			slices.Sort(removed)
			slices.Sort(kept)
			if tt.c.All { // it went with its kernel
				removed = slices.DeleteFunc(removed, func(p string) bool { return strings.HasSuffix(p, "unfinished-3") })
			}
			if !slices.Equal(removed, tt.removed) || !slices.Equal(kept, tt.kept) {
				t.Errorf("removed %q, kept %q;\nwant    %q, kept %q", removed, kept, tt.removed, tt.kept)
			}
			if len(would) != len(list) {
				t.Errorf("a dry run names %d, a real one %d", len(would), len(list))
			}
		})
	}
	if _, err := (Cleaning{Kernels: []string{"nosuch"}}).clean(t.Context(), testCache(t)); !errors.Is(err, ErrNoKernel) {
		t.Errorf("error %v, want %v", err, ErrNoKernel)
	}
	if list, err := (Cleaning{}).clean(t.Context(), t.TempDir()); err != nil || len(list) > 0 {
		t.Errorf("an empty cache: %v, %v", list, err)
	}
}

func TestCachedKernels(t *testing.T) {
	list, err := cachedKernels(testCache(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range list {
		got = append(got, k.Release+" "+strings.Join(k.Names, ",")+map[bool]string{true: " in use"}[k.InUse])
		if k.Bytes != int64(len("image")) {
			t.Errorf("%s: %d bytes", k.Release, k.Bytes)
		}
	}
	if want := []string{"named linux-image-x", "nameless ", "used  in use"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
