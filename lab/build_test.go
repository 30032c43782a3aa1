package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSourcesOf(t *testing.T) {
	const targets = "http://mirror.example/debian/ bookworm\nhttp://mirror.example/debian/ bookworm-updates\nhttp://security.example/ bookworm-security\n"
	for _, tt := range []struct {
		targets, suite string
		want           []string // without the keyring
		err            error
	}{
		{targets, "bullseye", []string{"http://mirror.example/debian/ bullseye main", "http://security.example/ bullseye-security main"}, nil},
		{targets, "sid", []string{"http://mirror.example/debian/ sid main"}, nil},
		{targets, "trixie-backports", []string{"http://mirror.example/debian/ trixie-backports main"}, nil},
		{"http://mirror.example/debian/ bookworm-updates\n", "sid", nil, errNoMirror},
		{"", "sid", nil, errNoMirror},
	} {
		text, err := sourcesOf(tt.targets, tt.suite)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.suite, err, tt.err)
		}
		var got []string
		for line := range strings.Lines(text) {
			_, rest, _ := strings.Cut(line, "] ")
			got = append(got, strings.TrimSpace(rest))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.suite, diff)
		}
	}
	if _, err := openApt(t.Context(), t.TempDir(), "../sid"); err == nil {
		t.Error("a suite may name a directory")
	}
}

func TestRecipes(t *testing.T) {
	all, err := Recipes()
	if err != nil {
		t.Fatal(err)
	}
	digests := make(map[string]string)
	for _, r := range all {
		if r.Doc == "" || !strings.HasPrefix(r.Source, "linux-source-") || len(r.Config) == 0 {
			t.Errorf("%s: %+v", r.Name, r)
		}
		if other, ok := digests[r.Source+r.digest()]; ok {
			t.Errorf("%s and %s are the same", r.Name, other)
		}
		digests[r.Source+r.digest()] = r.Name
	}
	if r, err := FindRecipe("nfqbug-6.1"); err != nil || len(r.Patches) != 1 {
		t.Errorf("nfqbug-6.1: %+v, %v", r, err)
	}
	if _, err := FindRecipe("nfqbug"); !errors.Is(err, ErrNoRecipe) || !strings.Contains(err.Error(), "nfqbug-6.1") {
		t.Errorf("error %v, want one with the names there are", err)
	}
	for name, text := range map[string]string{
		"misspelt": "doc: x\nsource: linux-source-6.1\nconfg: [a]\n",
		"missing":  "doc: x\nsource: linux-source-6.1\nconfig: [nowhere.config]\n",
	} {
		if _, err := readRecipe(fstest.MapFS{"kernels/" + name + ".yaml": {Data: []byte(text)}}, name); err == nil {
			t.Errorf("a recipe is accepted that is %s", name)
		}
	}
}

func TestLostOptions(t *testing.T) {
	const config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_S=\"-x\"\n"
	got := lostOptions("# a comment = here\n\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_C=n\nCONFIG_S=\"-x\"\nCONFIG_Z=n\n", config)
	if diff := cmp.Diff([]string{"CONFIG_B=y", "CONFIG_C=y", "CONFIG_C=n"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCached(t *testing.T) {
	cache := t.TempDir()
	r := &Recipe{Name: "k", Config: []string{"c"}, files: map[string][]byte{"c": []byte("CONFIG_A=y\n")}}
	if _, err := r.cached(cache); !errors.Is(err, ErrNoKernel) {
		t.Fatalf("error %v, want %v", err, ErrNoKernel)
	}
	dir := filepath.Join("kernels", "k_6.1.192-2_"+r.digest())
	writeFiles(t, cache, map[string][]byte{
		filepath.Join(dir, "boot/vmlinuz-6.1.192-k"):              nil,
		filepath.Join(dir, "lib/modules/6.1.192-k/modules.order"): nil,
	})
	if k, err := r.cached(cache); err != nil || k.Release != "6.1.192-k" {
		t.Errorf("%+v, %v", k, err)
	}
	r.files["c"] = []byte("CONFIG_A=n\n")
	if _, err := r.cached(cache); !errors.Is(err, ErrNoKernel) {
		t.Errorf("a kernel of another configuration is taken (%v)", err)
	}
}

// TestFill checks that what was not finished does not get the name of a kernel.
func TestFill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kernels", "k")
	broken := errors.New("broken")
	for _, make := range []func(string) error{
		func(string) error { return broken },
		func(work string) error { return os.MkdirAll(filepath.Join(work, "root/boot"), 0o755) }, // not a kernel
	} {
		if _, err := fill(dir, make); err == nil {
			t.Error("no error")
		}
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	k, err := fill(dir, func(work string) error {
		writeFiles(t, work, map[string][]byte{"root/boot/vmlinuz-1": nil, "root/lib/modules/1/modules.order": nil})
		return nil
	})
	if err != nil || k.Image != filepath.Join(dir, "boot/vmlinuz-1") {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lockFile(short, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a lock was taken twice (%v)", err)
	}
	unlock()
	again, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
