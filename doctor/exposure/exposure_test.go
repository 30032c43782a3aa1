package exposure

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"inquest/advisory"
	"inquest/internal/kerneltest"
)

func nfQueue(t *testing.T) *advisory.Advisory {
	t.Helper()
	all, err := advisory.All()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(a *advisory.Advisory) bool { return a.ID == "nf-queue-request-sock" })
	if i < 0 {
		t.Fatal("nf-queue-request-sock does not ship")
	}
	return all[i]
}

const banner = "Linux version 6.1.0-test (me@here) (gcc 12) #1 SMP Debian 6.1.7-1"

// vmlinuz is the file of a kernel whose nf_queue_entry_free calls a function.
func vmlinuz(callee string) []byte {
	m := kerneltest.New()
	m.KASLR, m.Kallsyms.NotInInfo = 0, true
	m.Symbol("sk_free", 'T', m.Text()+0x100)
	m.Symbol("sock_gen_put", 'T', m.Text()+0x200)
	m.Symbol("nf_queue_entry_free", 'T', m.Text()+0x300)
	m.Symbol("what_follows", 't', m.Text()+0x320)
	m.PutString(banner)
	m.Symbols()
	m.Write(m.Text()+0x300, bytes.Repeat([]byte{0x90}, 0x20))
	if to := map[string]uint64{"sk_free": 0x100, "sock_gen_put": 0x200}[callee]; to != 0 {
		m.Call(m.Text()+0x310, m.Text()+to)
	}
	return kerneltest.BzImage(m.Vmlinux())
}

// tree writes files below a new root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCheck(t *testing.T) {
	example, err := os.ReadFile("../../testdata/example.kdump") // a dump is read as /proc/kcore is
	if err != nil {
		t.Fatal(err)
	}
	type files = map[string]string
	tests := []struct {
		name   string
		files  files
		state  advisory.State
		sure   Sure
		source string
		reason string
	}{
		{"memory", files{"proc/version": "Linux version 6.9.0 (x)", "proc/kcore": string(example)},
			advisory.Exposed, Code, "/proc/kcore", "calls sk_free"},
		{"exposed file", files{"proc/version": banner + "\n", "boot/vmlinuz-6.1.0-test": string(vmlinuz("sk_free"))},
			advisory.Exposed, File, "/boot/vmlinuz-6.1.0-test", "calls sk_free"},
		{"fixed file", files{"proc/version": banner, "boot/vmlinuz-6.1.0-test": string(vmlinuz("sock_gen_put"))},
			advisory.Fixed, File, "/boot/vmlinuz-6.1.0-test", "calls sock_gen_put"},
		{"memory that cannot be read", files{"proc/version": banner, "proc/kcore": "", "usr/lib/modules/6.1.0-test/vmlinuz": string(vmlinuz("sk_free"))},
			advisory.Exposed, File, "/usr/lib/modules/6.1.0-test/vmlinuz", "calls sk_free"},
		{"file of another build", files{"proc/version": strings.Replace(banner, "6.1.7-1", "6.1.8-1", 1), "boot/vmlinuz-6.1.0-test": string(vmlinuz("sk_free"))},
			advisory.Fixed, Version, "", "6.1.8 has the fix"},
		{"code that is like none", files{"proc/version": banner, "boot/vmlinuz-6.1.0-test": string(vmlinuz(""))},
			advisory.Fixed, Version, "", "6.1.7 has the fix"},
		{"livepatch", files{"proc/version": banner, "boot/vmlinuz-6.1.0-test": string(vmlinuz("sk_free")),
			"sys/kernel/livepatch/fix/enabled": "1\n", "sys/kernel/livepatch/fix/vmlinux/nf_queue_entry_free,1/x": ""},
			advisory.Fixed, Version, "", "6.1.7 has the fix"},
		{"version only", files{"proc/version": "Linux version 5.10.103 (x)"},
			advisory.Exposed, Version, "", "5.10.103 lacks the fix, which came to its series with 5.10.104"},
		{"vendor's version", files{"proc/sys/kernel/osrelease": "4.18.0-305.3.1.el8.x86_64\n"},
			advisory.Exposed, Version, "", "older than 4.18.0-373.el8"},
		{"nothing", files{"proc/sys/kernel/osrelease": "5.14.0-70.el9.x86_64\n", "boot/vmlinuz-5.14.0-70.el9.x86_64": "?"},
			advisory.Undecided, Nothing, "", "its code cannot be read"},
	}
	for _, tt := range tests {
		k, err := Open(tree(t, tt.files))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := k.Check(nfQueue(t))
		if got.State != tt.state || got.Sure != tt.sure || !strings.Contains(got.Source, tt.source) || !strings.Contains(got.Reason, tt.reason) {
			t.Errorf("%s: %v, sure by %v, from %q: %q (problems %q)", tt.name, got.State, got.Sure, got.Source, got.Reason, k.Problems())
		}
		if (got.Sure == Version) != strings.Contains(got.Words(), "guess") {
			t.Errorf("%s: said as %q", tt.name, got.Words())
		}
	}
}

// What is in no file of the kernel itself may be in a module.
func TestModules(t *testing.T) {
	a := &advisory.Advisory{
		ID: "in-a-module", Fixed: []advisory.Commit{{Version: "9.9"}},
		Code: []advisory.Signature{{In: []string{"victim"}, Modules: []string{"my_module"}, Exposed: advisory.Look{Any: []string{"sk_free"}}, Fixed: advisory.Look{Any: []string{"sock_gen_put"}}}},
	}
	for callee, want := range map[string]advisory.State{"sk_free": advisory.Exposed, "sock_gen_put": advisory.Fixed} {
		for _, list := range []string{"modules.dep", "modules.order"} {
			root := tree(t, map[string]string{
				"proc/version":                                      banner,
				"boot/vmlinuz-6.1.0-test":                           string(vmlinuz("")),
				"lib/modules/6.1.0-test/" + list:                    "kernel/net/other.ko:\nkernel/net/my-module.ko\n",
				"lib/modules/6.1.0-test/kernel/net/my-module.ko.gz": string(kerneltest.Gzip(kerneltest.Module("victim", callee))),
			})
			if list == "modules.dep" {
				err := os.Rename(filepath.Join(root, "lib/modules/6.1.0-test/kernel/net/my-module.ko.gz"), filepath.Join(root, "lib/modules/6.1.0-test/kernel/net/my-module.ko"))
				if err != nil {
					t.Fatal(err)
				}
			}
			machine, err := Open(root)
			if err != nil {
				t.Fatal(err)
			}
			file, err := OpenFile(filepath.Join(root, "boot/vmlinuz-6.1.0-test"))
			if err != nil {
				t.Fatal(err)
			}
			for name, k := range map[string]*Kernel{"machine": machine, "file": file} {
				if got := k.Check(a); got.State != want || got.Function != "victim" {
					t.Errorf("%s, %s, %s: %+v", name, list, callee, got)
				}
			}
		}
	}
	if _, err := OpenFile("exposure_test.go"); err == nil {
		t.Error("a Go file is a kernel")
	}
}

func TestOpenNothing(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "which kernel runs") {
		t.Errorf("a root without /proc: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a root that is not there opens")
	}
	if _, err := Running("no-such-bug"); err == nil {
		t.Error("an advisory that is not there is no error")
	}
}

// A link in a copy of a machine's files that leads out of it is not followed.
func TestOpenStaysBelowRoot(t *testing.T) {
	secret := filepath.Join(tree(t, map[string]string{"version": banner}), "version")
	root := tree(t, map[string]string{"proc/x": ""})
	if err := os.Symlink(secret, filepath.Join(root, "proc/version")); err != nil {
		t.Fatal(err)
	}
	if k, err := Open(root); err == nil {
		t.Errorf("read %v", k.ID)
	}
}

func TestLivepatched(t *testing.T) {
	got := livepatched(fstest.MapFS{
		"sys/kernel/livepatch/on/enabled":               {Data: []byte("1\n")},
		"sys/kernel/livepatch/on/vmlinux/nf_reinject,1": {},
		"sys/kernel/livepatch/on/nf_tables/commit,2":    {},
		"sys/kernel/livepatch/off/enabled":              {Data: []byte("0\n")},
		"sys/kernel/livepatch/off/vmlinux/tcp_ack,1":    {},
	})
	if len(got) != 2 || got["nf_reinject"] != "on" || got["commit"] != "on" {
		t.Errorf("got %v", got)
	}
}

func TestID(t *testing.T) {
	tests := []struct {
		release, banner, signature string
		want                       ID
	}{
		{"6.18.44", "", "", ID{Base: "6.18.44"}},
		{"6.1.0-rc3+", "", "", ID{Base: "6.1.0"}},
		{"5.10.0-43-cloud-amd64", "Linux version 5.10.0-43-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-10) #1 SMP Debian 5.10.251-5 (2026-01-01)", "", ID{Base: "5.10.251", Vendor: Debian}},
		{"5.10.0-46-cloud-amd64", "Linux version 5.10.0-46-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-10 (Debian 10.2.1-6) 10.2.1 20210110, GNU ld (GNU Binutils for Debian) 2.35.2) #1 SMP Debian 5.10.262-1 (2026-11-01)", "", ID{Base: "5.10.262", Vendor: Debian}},
		{"6.1.192-nfqbug", "Linux version 6.1.192-nfqbug (inquest@lab) (gcc (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP @0", "", ID{Base: "6.1.192"}},
		{"6.12.117+deb12-cloud-amd64", "Linux version … (gcc) # SMP PREEMPT_DYNAMIC Debian 6.12.117-1~deb12u1 (2026-11-14)", "", ID{Base: "6.12.117", Vendor: Debian}},
		{"5.15.0-25-generic", "Linux version 5.15.0-25-generic (buildd@ubuntu) (gcc) #25-Ubuntu SMP Wed", "Ubuntu 5.15.0-25.25-generic 5.15.30", ID{Base: "5.15.30", Vendor: Ubuntu}},
		{"5.15.0-25-generic", "Linux version 5.15.0-25-generic (buildd@ubuntu) (gcc) #25-Ubuntu SMP Wed", "", ID{Vendor: Ubuntu}},
		{"4.18.0-305.3.1.el8.x86_64", "", "", ID{Base: "4.18.0", Vendor: RHEL}},
		{"5.14.0-162.6.1.el9_1.x86_64", "", "", ID{Base: "5.14.0", Vendor: RHEL}},
		{"5.3.18-150300.59.43-default", "", "", ID{Base: "5.3.18", Vendor: SUSE}},
		{"5.10.102-99.473.amzn2.x86_64", "", "", ID{Base: "5.10.102", Vendor: Amazon}},
		{"garbage", "", "", ID{}},
	}
	for _, tt := range tests {
		got := NewID(tt.release, tt.banner, tt.signature)
		if got.Base != tt.want.Base || got.Vendor != tt.want.Vendor {
			t.Errorf("%s: base %q of vendor %q, want %q of %q", tt.release, got.Base, got.Vendor, tt.want.Base, tt.want.Vendor)
		}
	}
	if id := NewID("", banner, ""); id.Release != "6.1.0-test" {
		t.Errorf("release of the banner is %q", id.Release)
	}
}

func TestGuess(t *testing.T) {
	a := &advisory.Advisory{
		Introduced: advisory.Commit{Version: "4.4"}, Fixed: []advisory.Commit{{Version: "5.17"}},
		Stable: []string{"5.10.104", "5.16.13"},
	}
	tests := []struct {
		id     ID
		want   advisory.State
		reason string
	}{
		{ID{Base: "6.18.44"}, advisory.Fixed, "came with 5.17"},
		{ID{Base: "5.17"}, advisory.Fixed, "5.17 has the fix"},
		{ID{Base: "5.16.12"}, advisory.Exposed, "5.16.13"},
		{ID{Base: "5.16.13"}, advisory.Fixed, "5.16.13"},
		{ID{Base: "5.4.300"}, advisory.Exposed, "no release of its series"},
		{ID{Base: "4.3.9"}, advisory.Fixed, "older than the bug"},
		{ID{Base: "5.10.251", Vendor: Debian}, advisory.Fixed, "5.10.104"},
		{ID{Base: "5.3.18", Vendor: SUSE}, advisory.Undecided, ""},
		{ID{Base: "5.10.102", Vendor: Amazon}, advisory.Undecided, ""},
		{ID{Base: "", Vendor: Ubuntu}, advisory.Undecided, ""},
		{ID{Base: "99999.1"}, advisory.Fixed, ""},
	}
	for _, tt := range tests {
		got := tt.id.guess(a)
		if got.State != tt.want || !strings.Contains(got.Reason, tt.reason) {
			t.Errorf("%+v: %v, %q; want %v, %q", tt.id, got.State, got.Reason, tt.want, tt.reason)
		}
	}
}

func TestVendorGuess(t *testing.T) {
	a := &advisory.Advisory{
		Introduced: advisory.Commit{Version: "4.4"}, Fixed: []advisory.Commit{{Version: "5.17"}},
		Vendors: []advisory.Vendor{
			{Series: "debian/11", Fixed: "5.10.106-1"}, {Series: "ubuntu/22.04", Fixed: "5.15.0-25.25"},
			{Series: "4.18.0-*.el8", Fixed: "4.18.0-373.el8"}, {Series: "[", Fixed: "1"},
		},
	}
	const ubuntu = "Linux version 5.15.0 (x) #1-Ubuntu SMP"
	tests := []struct {
		release, banner string
		want            advisory.State
	}{
		{"5.10.0-12-amd64", "Linux version 5.10.0-12-amd64 (x) #1 SMP Debian 5.10.103-1 (2022-03-07)", advisory.Exposed},
		{"5.10.0-13-amd64", "Linux version 5.10.0-13-amd64 (x) #1 SMP Debian 5.10.106-1 (2022-03-17)", advisory.Fixed},
		{"4.18.0-305.3.1.el8.x86_64", "", advisory.Exposed},
		{"4.18.0-373.el8.x86_64", "", advisory.Fixed},
		{"4.18.0-477.10.1.el8_8.x86_64", "", advisory.Fixed},
		{"4.18.0-40.el8.x86_64", "", advisory.Exposed},
		{"5.14.0-70.el9.x86_64", "", advisory.Undecided},
		{"5.15.0-25-generic", ubuntu, advisory.Undecided}, // its base is not known
	}
	for _, tt := range tests {
		if got := NewID(tt.release, tt.banner, "").guess(a); got.State != tt.want {
			t.Errorf("%s: %v, %q; want %v", tt.release, got.State, got.Reason, tt.want)
		}
	}
	for release, want := range map[string]advisory.State{"5.15.0-25-generic": advisory.Fixed, "5.15.0-24-generic": advisory.Exposed} {
		if got := NewID(release, ubuntu, "Ubuntu 5.15.0-1.1-generic 5.15.30").guess(a); got.State != want {
			t.Errorf("%s of Ubuntu: %v, %q; want %v", release, got.State, got.Reason, want)
		}
	}
}

func FuzzID(f *testing.F) {
	f.Add("5.10.0-43-cloud-amd64", banner, "Ubuntu 5.15.0-25.25-generic 5.15.30")
	f.Add("4.18.0-305.3.1.el8.x86_64", "", "")
	a := &advisory.Advisory{Introduced: advisory.Commit{Version: "4.4"}, Fixed: []advisory.Commit{{Version: "5.17"}}, Stable: []string{"5.10.104"},
		Vendors: []advisory.Vendor{{Series: "debian/11", Fixed: "5.10.106-1"}, {Series: "4.18.0-*.el8", Fixed: "4.18.0-373.el8"}}}
	f.Fuzz(func(t *testing.T, release, banner, signature string) {
		id := NewID(release, banner, signature)
		if v := id.guess(a); (v.State == advisory.Undecided) != (v.Reason == "") {
			t.Errorf("%+v: %+v", id, v)
		}
	})
}
