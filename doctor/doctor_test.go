package doctor

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"inquest/advisory"
)

var update = flag.Bool("update", false, "write what comes into testdata")

// open opens the machine in a txtar file, but for the section "want".
func open(t *testing.T, archive *txtar.Archive) *Subject {
	t.Helper()
	root := t.TempDir()
	for _, f := range archive.Files {
		if f.Name == "want" {
			continue
		}
		path := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Machine(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Name, s.known = "a copy", onlyRequestSock
	return s
}

// onlyRequestSock is the one advisory that there is to do something about here.
func onlyRequestSock() ([]*advisory.Advisory, error) {
	all, err := advisory.Shipped()
	return []*advisory.Advisory{advisory.Find(all, requestSockBug)}, err
}

// TestMachines examines recorded machines. What comes is the section "want".
func TestMachines(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := open(t, archive)
			s.free = func(path string) (uint64, error) { return map[string]uint64{"/srv/crash": 20 << 30}[path], nil }
			var got bytes.Buffer
			report := s.Examine()
			if err := report.Text(&got, Style{Width: 100, Verbose: true}); err != nil {
				t.Fatal(err)
			}
			i := len(archive.Files)
			for j, f := range archive.Files {
				if f.Name == "want" {
					i = j
				}
			}
			if *update {
				archive.Files = append(archive.Files[:i], txtar.File{Name: "want", Data: got.Bytes()})
				if err := os.WriteFile(file, txtar.Format(archive), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if i == len(archive.Files) {
				t.Fatal("there is no section want: run with -update")
			}
			if diff := cmp.Diff(string(archive.Files[i].Data), got.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if exposed := strings.Contains(got.String(), "EXPOSED"); report.Exposed != exposed {
				t.Errorf("exposed is %t", report.Exposed)
			}
		})
	}
}

func TestReportJSON(t *testing.T) {
	s := open(t, txtar.Parse([]byte("-- proc/version --\nLinux version 5.10.1 (x)\n")))
	raw, err := json.Marshal(s.Examine())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Subject, Release string
		Exposed          bool
		Findings         []struct{ Check, State, Sure, Title, Advisory string }
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.Release != "5.10.1" || !got.Exposed || len(got.Findings) < len(Checks) {
		t.Errorf("got %+v", got)
	}
	seen := map[string]bool{}
	for _, f := range got.Findings {
		seen[f.Check] = true
		if f.Title == "" || f.State == "" || f.Sure == "" || strings.HasSuffix(f.Title, ".") {
			t.Errorf("incomplete: %+v", f)
		}
		if f.Advisory == requestSockBug && f.Check == "known-bugs" && (f.State != "exposed" || f.Sure != "guess") {
			t.Errorf("by the version alone: %+v", f)
		}
	}
	for _, c := range Checks {
		if !seen[c.Name] || c.Doc == "" {
			t.Errorf("check %s found nothing, or has no doc", c.Name)
		}
	}
}

// The hook makes a kernel that has the bug safe.
func TestHooked(t *testing.T) {
	const machine = "-- proc/version --\nLinux version 5.10.1 (x)\n-- nft_list_ruleset --\n" +
		"table ip t {\n chain c {\n type filter hook output priority 0;\n tcp sport 80 queue num 0\n }\n}\n" +
		"-- proc/net/netfilter/nfnetlink_queue --\n0 77 0 2 64 0 0 1 1\n"
	for _, tt := range []struct {
		more    string
		exposed bool
	}{{"", true}, {"-- sys/module/inquest_guard/version --\n1\n", false}} {
		if r := open(t, txtar.Parse([]byte(machine+tt.more))).Examine(); r.Exposed != tt.exposed {
			t.Errorf("with %q: exposed is %t, %+v", tt.more, r.Exposed, r.Findings)
		}
	}
}

func TestFile(t *testing.T) {
	s, err := File("../testdata/example.kdump")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := s.Examine()
	if !r.Exposed || r.Release != "6.1.192-nfqbug" || r.Findings[0].Advisory != requestSockBug || r.Findings[0].Sure != Certain {
		t.Errorf("got %+v", r)
	}
	hit := false
	for _, f := range r.Findings {
		hit = hit || f.Check == "kernel-log" && f.State == Exposed && f.Advisory == requestSockBug
	}
	if !hit {
		t.Errorf("its log is not recognised: %+v", r.Findings)
	}
	for _, path := range []string{"doctor_test.go", "testdata", "nowhere"} {
		if _, err := File(path); err == nil {
			t.Errorf("%s opens", path)
		}
	}
}

func TestMachineNowhere(t *testing.T) {
	if _, err := Machine(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that is not there opens")
	}
	s, err := Machine(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := s.Examine()
	if r.Exposed || r.Release != "" || r.Findings[0].State != Unknown {
		t.Errorf("an empty directory: %+v", r)
	}
}

// This machine can be examined without root, whatever it is.
func TestThisMachine(t *testing.T) {
	s, err := Machine("/")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := s.Examine()
	if r.Release == "" || len(r.Findings) < len(Checks) {
		t.Errorf("got %+v", r)
	}
}

func TestTextWraps(t *testing.T) {
	r := &Report{Subject: "x", Findings: []Finding{{Check: "c", State: Weak, Title: strings.Repeat("word ", 30), Advice: []string{"\x1b[2Jclear " + strings.Repeat("x", 200)}}}}
	var b bytes.Buffer
	if err := r.Text(&b, Style{Width: 60, Colour: true}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := len(line); n > 75 && !strings.Contains(line, "xxx") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if strings.Contains(b.String(), "\x1b[2J") || !strings.Contains(b.String(), "\x1b[33m") {
		t.Errorf("got %q", b.String())
	}
}

func BenchmarkExamine(b *testing.B) {
	for b.Loop() {
		s, err := File("../testdata/example.kdump")
		if err != nil {
			b.Fatal(err)
		}
		s.Examine()
		s.Close()
	}
}
