//go:build netns

package verdict

import (
	"errors"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// chains are the names of the table's chains that the kernel has, with how many rules.
func chains(t *testing.T, table string) map[string]int {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	list, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]int)
	for _, c := range list {
		if c.Table.Name == table {
			rules, err := conn.GetRules(c.Table, c)
			if err != nil {
				t.Fatal(err)
			}
			found[c.Name] = len(rules)
		}
	}
	return found
}

func TestInstallNetns(t *testing.T) {
	n := newNamespace(t)
	n.do(func() {
		r := NewRuleset(fullConfig(), true)
		check := func(what string, r *Ruleset) {
			t.Helper()
			got := chains(t, r.Table)
			for _, c := range r.chains {
				if got[c.name] != len(c.rules) {
					t.Errorf("%s: chain %s has %d rules, want %d", what, c.name, got[c.name], len(c.rules))
				}
				delete(got, c.name)
			}
			for name, n := range got {
				if n > 0 {
					t.Errorf("%s: chain %s is left with %d rules", what, name, n)
				}
			}
			if there, err := r.Installed(); err != nil || !there {
				t.Errorf("%s: installed: %t, %v", what, there, err)
			}
		}
		way, err := r.Install()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("the kernel queues by %s", way)
		check("installed", r)

		// As after a daemon that was killed: other rules, in the same place and in another.
		fewer := NewRuleset(&Config{Hooks: []Hook{Input}, Priority: 10, Table: "inquest", Queues: Queues{5, 1}, Mark: 0xf0, Shortcut: true}, false)
		if _, err := fewer.Install(); err != nil {
			t.Fatal(err)
		}
		check("fewer rules", fewer)
		moved := NewRuleset(&Config{Hooks: []Hook{Input, Output}, Priority: 20, Table: "inquest", Queues: Queues{5, 1}, Mark: 0xf0}, false)
		if _, err := moved.Install(); err != nil {
			t.Fatal(err)
		}
		check("another priority", moved)
		if got := chains(t, "inquest"); len(got) != len(moved.chains) {
			t.Errorf("the table that was made anew has chains %v", got)
		}

		if err := moved.StopQueueing(); err != nil {
			t.Fatal(err)
		}
		check("stopped", moved.without(func(a action) bool { _, is := a.(enqueue); return is }))
		for range 2 {
			if err := moved.Remove(); err != nil {
				t.Fatal(err)
			}
		}
		if got := chains(t, "inquest"); len(got) > 0 {
			t.Errorf("chains %v are left", got)
		}
		if there, err := moved.Installed(); err != nil || there {
			t.Errorf("after it was removed: installed: %t, %v", there, err)
		}
	})
}

// A table of our name that somebody else made is left alone.
func TestForeignTableNetns(t *testing.T) {
	n := newNamespace(t)
	n.do(func() {
		conn, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		table := conn.AddTable(&nftables.Table{Name: "inquest", Family: nftables.TableFamilyINet})
		conn.AddChain(&nftables.Chain{Name: "precious", Table: table})
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		r := NewRuleset(fullConfig(), true)
		if _, err := r.Install(); !errors.Is(err, ErrForeignTable) {
			t.Errorf("install: %v", err)
		}
		if err := r.Remove(); !errors.Is(err, ErrForeignTable) {
			t.Errorf("remove: %v", err)
		}
		if got := chains(t, "inquest"); len(got) != 1 {
			t.Errorf("chains are %v", got)
		}
	})
}

// Without CAP_NET_ADMIN nothing is installed, and the error says so.
func TestNoPermissionNetns(t *testing.T) {
	n := newNamespace(t)
	n.do(func() {
		// Only this thread loses its rights, and it ends with the test.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := NewRuleset(fullConfig(), true).Install(); !errors.Is(err, ErrPermission) {
			t.Errorf("got %v", err)
		}
	})
}
