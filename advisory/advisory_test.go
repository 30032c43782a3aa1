package advisory

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"inquest/kernel"
)

func TestShipped(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if len(a.Code) == 0 || len(a.Workaround) == 0 || a.Summary == "" || a.Note == "" || len(a.Distros) == 0 {
			t.Errorf("%s: an advisory that ships has a summary, a code signature, a workaround, a word on distributions and a note on its test", a.ID)
		}
	}
	if !slices.ContainsFunc(all, func(a *Advisory) bool { return a.ID == "nf-queue-request-sock" }) {
		t.Error("nf-queue-request-sock does not ship")
	}
}

func TestParseErrors(t *testing.T) {
	const good = "id: a\ntitle: t\nclass: bug\nfixed: [{commit: 0123456789ab, version: \"1.0\"}]\nstack: [[f]]\n"
	tests := []struct{ name, yaml, want string }{
		{"good", good, ""},
		{"no id", strings.Replace(good, "id: a\n", "", 1), "needs an id"},
		{"no stack", strings.Replace(good, "stack: [[f]]\n", "", 1), "no stack signature"},
		{"no fix", strings.Replace(good, "fixed: [{commit: 0123456789ab, version: \"1.0\"}]\n", "", 1), "what fixed it"},
		{"misspelt key", good + "workarround: [x]\n", "workarround"},
		{"no YAML", "{", ""},
	}
	for _, tt := range tests {
		_, err := Parse([]byte(tt.yaml))
		switch {
		case tt.name == "good" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.name != "good" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want one about %q", tt.name, err, tt.want)
		}
	}
}

func TestMatchStack(t *testing.T) {
	a := &Advisory{Stack: []OneOf{{"a", "b"}, {"c"}}}
	tests := []struct {
		stack, want string
	}{
		{"a c", "a c"},
		{"x b y c z", "b c"},
		{"c a", ""},
		{"a", ""},
		{"", ""},
	}
	for _, tt := range tests {
		if got := strings.Join(a.MatchStack(strings.Fields(tt.stack)), " "); got != tt.want {
			t.Errorf("stack %q matched %q, want %q", tt.stack, got, tt.want)
		}
	}
}

// What is said of a kernel's code is what was seen in it.
func TestReasons(t *testing.T) {
	want := map[string]string{
		"fcntl-close-race exposed":      "fcntl_setlk calls do_lock_file_wait and never locks_remove_posix in this kernel's own code",
		"fuse-bad-inode fixed":          "fuse_iget calls iget5_locked and never make_bad_inode, as the fixed code does",
		"nft-anonymous-set exposed":     "nft_lookup_activate never calls nf_tables_activate_set in this kernel's own code",
		"stackrot exposed":              "do_user_addr_fault calls find_vma and never lock_mm_and_find_vma in this kernel's own code",
		"tcp-sack-panic exposed":        "tcp_sacktag_walk calls skb_shift in a kernel without tcp_skb_shift and compares nothing with 524279 or 524280 in this kernel's own code",
		"tcp-twsk-unique exposed":       "tcp_twsk_unique has xadd and has no cmpxchg in this kernel's own code",
		"tcp-twsk-unique fixed":         "tcp_twsk_unique has cmpxchg, as the fixed code does",
		"tun-short-frame exposed":       "tun_sendmsg calls build_skb and compares nothing with 13 or 14 in this kernel's own code",
		"nf-queue-request-sock exposed": "nf_queue_entry_release_refs calls sk_free and never sock_gen_put in this kernel's own code",
		"ixgbe-sriov-disable exposed":   "ixgbe_disable_sriov calls pci_dev_put, pci_disable_sriov and never _raw_spin_lock_irqsave or rt_spin_lock in this kernel's own code",
	}
	all, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for key, reason := range want {
		id, state, _ := strings.Cut(key, " ")
		var got []string
		for _, e := range readExcerpts(t, filepath.Join("testdata", "code", id+".txt")) {
			if v := Find(all, id).CheckCode(e); v.State.String() == state {
				got = append(got, v.Reason)
			}
		}
		if !slices.Contains(got, reason) {
			t.Errorf("%s: %q, want %q", key, got, reason)
		}
	}
}

// program is code for [Code]: functions at addresses, each a list of calls.
type program map[string]struct {
	addr  kernel.Addr
	calls []string
}

const functionSize = 64

func (p program) LookupAll(name string) ([]kernel.Symbol, error) {
	f, ok := p[name]
	if !ok {
		return nil, kernel.ErrNoSymbol
	}
	return []kernel.Symbol{{Name: name, Addr: f.addr, Size: functionSize, Type: 't'}}, nil
}

func (p program) SymbolAt(addr kernel.Addr) (kernel.Symbol, uint64, bool) {
	for name, f := range p {
		if addr >= f.addr && addr < f.addr+functionSize {
			return kernel.Symbol{Name: name, Addr: f.addr, Size: functionSize}, uint64(addr - f.addr), true
		}
	}
	return kernel.Symbol{}, 0, false
}

// Slice assembles a function: endbr64, its calls, the last of them as a jump, and
// int3 to its end.
func (p program) Slice(addr kernel.Addr, n int) ([]byte, error) {
	sym, _, _ := p.SymbolAt(addr)
	code := []byte{0xf3, 0x0f, 0x1e, 0xfa}
	calls := p[sym.Name].calls
	for i, c := range calls {
		op := byte(0xe8)
		if i == len(calls)-1 {
			op = 0xe9
		}
		next := int64(addr) + int64(len(code)) + 5
		code = binary.LittleEndian.AppendUint32(append(code, op), uint32(int64(p[c].addr)-next))
	}
	for len(code) < n {
		code = append(code, 0xcc)
	}
	return code, nil
}

func TestCheckCode(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(a *Advisory) bool { return a.ID == "nf-queue-request-sock" })
	a := all[i]
	type functions = map[string][]string
	tests := []struct {
		name string
		code functions
		want State
	}{
		{"before the fix", functions{"nf_queue_entry_release_refs": {"dev_put", "sk_free"}, "nf_queue_entry_free": {"nf_queue_entry_release_refs", "kfree"}}, Exposed},
		{"after the fix", functions{"nf_queue_entry_release_refs": {"sock_gen_put", "dev_put"}}, Fixed},
		{"before, inlined", functions{"nf_queue_entry_free": {"sk_free", "kfree"}}, Exposed},
		{"after, inlined", functions{"nf_queue_entry_free": {"sock_gen_put", "kfree"}}, Fixed},
		{"before, in a piece that the compiler split off", functions{"nf_queue_entry_release_refs": {"dev_put", "nf_queue_entry_release_refs.part.0"}, "nf_queue_entry_release_refs.part.0": {"sk_free"}}, Exposed},
		{"after, in code that is cold", functions{"nf_queue_entry_release_refs": {"sk_free", "nf_queue_entry_release_refs.cold"}, "nf_queue_entry_release_refs.cold": {"sock_gen_put"}}, Fixed},
		{"after, called through the padding in front", functions{"nf_queue_entry_release_refs": {"__pfx_sock_gen_put"}}, Fixed},
		{"under another name", functions{"nf_queue_entry_free.constprop.0": {"sk_free", "kfree"}}, Exposed},
		{"told apart by hand", functions{"nf_queue_entry_release_refs": {"sock_gen_put", "sk_free"}}, Fixed},
		{"other code", functions{"nf_queue_entry_release_refs": {"kfree"}}, Undecided},
		{"no netfilter", functions{}, Undecided},
	}
	for _, tt := range tests {
		p := program{}
		add := func(name string, calls []string) {
			if f, ok := p[name]; ok && f.calls != nil {
				return
			}
			f := p[name]
			if f.addr == 0 {
				f.addr = 0xffffffff81000000 + kernel.Addr(functionSize*len(p))
			}
			f.calls = calls
			p[name] = f
		}
		for name, calls := range tt.code {
			add(name, calls)
			for _, c := range calls {
				add(c, nil)
			}
		}
		v := a.CheckCode(p)
		if v.State != tt.want {
			t.Errorf("%s: %v (%s), want %v", tt.name, v.State, v.Reason, tt.want)
		}
		if (v.State != Undecided) != (v.Reason != "") {
			t.Errorf("%s: %v with reason %q", tt.name, v.State, v.Reason)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("id: a\ntitle: t\nclass: bug\nfixed: [{commit: 0123456789ab, version: \"1.0\"}]\nstack: [[f]]\n"))
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, problems := Lint(raw)
		lines := bytes.Count(raw, []byte("\n")) + 1
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Line > lines+1 || p.Message == "" {
				t.Fatalf("%+v in a file of %d lines", p, lines)
			}
		}
		if len(problems) > 0 {
			return
		}
		a.MatchStack([]string{"f"})
		a.Advice()
		a.CheckCode(program{})
	})
}
