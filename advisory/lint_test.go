package advisory

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// good is an advisory without fault.
const good = `id: some-bug
title: something is done twice
class: double-free
summary: It is.
introduced: {commit: 0123456789ab, version: "5.1"}
fixed:
  - {commit: ba9876543210, version: "6.1", subject: "do it once"}
stable: ["5.4.7", "5.10.3"]
vendors:
  - {series: debian/11, fixed: 5.10.3-1}
within: 3
stack:
  - [kfree, do_it]
  - [do_it_all]
code:
  - in: [do_it]
    module: [it]
    fixed: {calls: [once], uses: [cmpxchg]}
    exposed: {calls: [kfree], not: [twice], compares: [3], defines: [x], lacks: [y]}
`

func TestLint(t *testing.T) {
	if a, problems := Lint([]byte(good)); len(problems) > 0 || a.Code[0].Exposed.Compares[0] != 3 {
		t.Fatalf("the good one: %+v, %v", a, problems)
	}
	tests := []struct{ name, old, new, want string }{
		{"no YAML", "class: double-free", "class: [double", "4:1: "},
		{"a key twice", "class: double-free", "id: other", `3:1: mapping key "id" already defined`},
		{"misspelt key", "within: 3", "wihtin: 3", `11:1: no key is called "wihtin"`},
		{"misspelt key inside", "    module: [it]", "    modules: [it]", `17:5: no key is called "modules"`},
		{"wrong kind", "within: 3", "within: [3]", "11:"},
		{"no id", "id: some-bug\n", "", "1:1: an advisory needs an id"},
		{"bad id", "some-bug", "Some Bug", `1:5: "Some Bug" is not of the form`},
		{"class", "double-free", "double-fee", `3:8: class "double-fee" is none of type-confusion`},
		{"title", "done twice", "done twice.", "2:8: a title is one line without a full stop"},
		{"commit", "0123456789ab", "v5.1", `5:22: "v5.1" is not of the form: 12 to 40`},
		{"no commit", "commit: ba9876543210, ", "", "7:6: a fix has a commit"},
		{"no fix", "fixed:\n  - {commit: ba9876543210, version: \"6.1\", subject: \"do it once\"}\n", "", "does not say what fixed it"},
		{"version", `"5.4.7"`, `"5.4.x"`, `8:10: "5.4.x" is not of the form`},
		{"order", `["5.4.7", "5.10.3"]`, `["5.10.3", "5.4.7"]`, "8:20: 5.4.7 comes after 5.10.3"},
		{"vendor", ", fixed: 5.10.3-1", "", "10:6: a vendor has a series"},
		{"within", "within: 3", "within: -3", "11:9: within is a number"},
		{"no stack", "stack:\n  - [kfree, do_it]\n  - [do_it_all]\n", "", "has no stack signature"},
		{"empty step", "[kfree, do_it]", "[]", "13:5: a step of the stack names at least one"},
		{"suffix", "do_it_all", "do_it_all.isra.0", `14:6: "do_it_all.isra.0": suffixes of the compiler are left out, "do_it_all"`},
		{"no function", "[kfree, do_it]", "[kfree, do it]", `13:13: "do it" is no name of a function`},
		{"twice", "[kfree, do_it]", "[kfree, kfree]", "13:13: kfree stands here twice"},
		{"no place", "in: [do_it]", "in: []", "in which functions to look"},
		{"module", "module: [it]", "module: [it.ko]", `17:14: "it.ko" is not of the form`},
		{"no look", "    fixed: {calls: [once], uses: [cmpxchg]}\n    exposed: {calls: [kfree], not: [twice], compares: [3], defines: [x], lacks: [y]}\n", "", "what exposed or fixed code looks like"},
		{"both ways", "not: [twice]", "not: [kfree]", "19:37: kfree stands in calls, too"},
		{"instruction", "cmpxchg", "cmpxchange", `18:35: "cmpxchange" is no instruction`},
		{"alias", "id: some-bug", "id: &a some-bug", "anchors, aliases and tags"},
		{"two documents", "id: some-bug", "---\nid: a\n---\nid: some-bug", "a file is one advisory; this has"},
		{"brackets", "[kfree, do_it]", strings.Repeat("[", 5000), "13:1: too much of it"},
		{"no text", "something", "\xff", "1:1: no UTF-8 text"},
	}
	for _, tt := range tests {
		text := strings.Replace(good, tt.old, tt.new, 1)
		if text == good {
			t.Fatalf("%s: %q is not in the good one", tt.name, tt.old)
		}
		_, problems := Lint([]byte(text))
		var all strings.Builder
		for _, p := range problems {
			fmt.Fprintln(&all, p)
		}
		if !strings.Contains(all.String(), tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, all.String(), tt.want)
		}
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: parsed", tt.name)
		}
	}
}

func TestLoad(t *testing.T) {
	all, err := Load(fstest.MapFS{
		"b.yaml":       {Data: []byte(good)},
		"a/again.yaml": {Data: []byte(good)},
		"c.yaml":       {Data: []byte(strings.Replace(good, "some-bug", "another", 1))},
		"d.yaml":       {Data: []byte("id: x")},
		"notes.txt":    {Data: []byte("no advisory")},
	})
	if len(all) != 2 || all[0].ID != "another" || all[1].ID != "some-bug" || all[1].File != "a/again.yaml" {
		t.Errorf("loaded %v", all)
	}
	for _, want := range []string{"b.yaml: there is an advisory some-bug in a/again.yaml already", "d.yaml:1:1: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestUser(t *testing.T) {
	first, second, config := t.TempDir(), t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(first, "own.yaml"):     good,
		filepath.Join(second, "own.yaml"):    strings.Replace(good, "done twice", "done thrice", 1),
		filepath.Join(second, "nf.yaml"):     strings.Replace(good, "some-bug", "nf-queue-request-sock", 1),
		filepath.Join(second, "broken.yaml"): "id: [",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_CONFIG_HOME", config)
	if err := os.MkdirAll(filepath.Join(config, "inquest", "advisories"), 0o755); err != nil {
		t.Fatal(err)
	}
	if dirs := Directories(); len(dirs) == 0 || dirs[len(dirs)-1] != filepath.Join(config, "inquest", "advisories") {
		t.Errorf("without %s: %q", DirectoryVariable, dirs)
	}
	t.Setenv(DirectoryVariable, first+string(os.PathListSeparator)+second)
	own, err := LoadUser(Directories())
	if err == nil || !strings.Contains(err.Error(), "advisories in "+second+": broken.yaml:1:") {
		t.Errorf("error %v", err)
	}
	shipped, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	all := Merge(shipped, own)
	if len(all) != len(shipped)+1 {
		t.Errorf("%d advisories, shipped are %d", len(all), len(shipped))
	}
	if a := Find(all, "some-bug"); a == nil || a.Title != "something is done thrice" || a.File != filepath.Join(second, "own.yaml") {
		t.Errorf("own advisory is %+v", a)
	}
	if a := Find(all, "nf-queue-request-sock"); a == nil || a.Class != "double-free" {
		t.Errorf("the replaced one is %+v", a)
	}
	if Find(all, "none") != nil {
		t.Error("found an advisory that is not there")
	}
	if _, err := LoadUser([]string{filepath.Join(first, "none")}); err == nil {
		t.Error("a directory that is not there is no error")
	}
}
