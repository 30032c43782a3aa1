package rule

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// TestPrefixTable compares the table with looking at all prefixes.
func TestPrefixTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	addr := func() netip.Addr {
		if rng.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(rng.IntN(3)), byte(rng.IntN(4)), byte(rng.IntN(256))})
		}
		a := [16]byte{0: 0x20, 1: byte(rng.IntN(2)), 7: byte(rng.IntN(4)), 8: byte(rng.IntN(4)), 15: byte(rng.IntN(256))}
		return netip.AddrFrom16(a)
	}
	for round := range 50 {
		values := map[netip.Prefix]int{}
		for i := range rng.IntN(60) {
			a := addr()
			values[netip.PrefixFrom(a, rng.IntN(a.BitLen()+1)).Masked()] = i
		}
		table := newPrefixTable(values)
		for range 200 {
			a := addr()
			var got, want []netip.Prefix
			for entries, i := table.find(a); i >= 0; i = entries[i].around {
				for p, v := range values { // values are different for different prefixes
					if v == entries[i].value && p.Addr().BitLen() == a.BitLen() {
						got = append(got, p)
					}
				}
			}
			for p := range values {
				if p.Contains(a) {
					want = append(want, p)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("round %d, %v: got %v, want %v", round, a, got, want)
			}
			for i, p := range got {
				if !p.Contains(a) || i > 0 && p.Bits() >= got[i-1].Bits() {
					t.Fatalf("round %d, %v: got %v, want %v, longest first", round, a, got, want)
				}
			}
		}
	}
}

// TestSuffixTable compares the table with looking at all suffixes.
func TestSuffixTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	text := func(n int) string {
		b := make([]byte, 1+rng.IntN(n))
		for i := range b {
			b[i] = "ab."[rng.IntN(3)]
		}
		return string(b)
	}
	for round := range 100 {
		values := map[string]string{}
		for range rng.IntN(40) {
			s := text(5)
			values[s] = s
		}
		table := newSuffixTable(values)
		for range 200 {
			s := text(8)
			found := map[string]bool{}
			last := len(s) + 1
			for i := table.find(s); i >= 0; i = table.list[i].within {
				if e := table.list[i]; len(e.suffix) >= last {
					t.Fatalf("round %d, %q: not the longest first", round, s)
				} else {
					last = len(e.suffix)
					found[e.value] = true
				}
			}
			for suffix := range values {
				if found[suffix] != strings.HasSuffix(s, suffix) {
					t.Fatalf("round %d, %q: found %v of %v", round, s, found, values)
				}
			}
		}
	}
}

func TestDomains(t *testing.T) {
	s := &domainSet{entries: map[string]domainKind{}}
	for _, d := range []string{"Exact.example.", "*.below.example", ".both.example", "com"} {
		if err := s.add(d); err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]bool{
		"exact.example": true, "a.exact.example": false, "inexact.example": false,
		"below.example": false, "a.below.example": true, "a.b.below.example": true, "abelow.example": false,
		"both.example": true, "a.both.example": true, "aboth.example": false,
		"com": true, "a.com": false, "": false, ".": false, "example": false,
	} {
		if got := s.has(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
		for _, suffix := range s.suffixes() {
			if want && strings.HasSuffix(name, suffix) {
				want = false
			}
		}
		if want {
			t.Errorf("%q is in the set and ends with none of %q", name, s.suffixes())
		}
	}
	for _, bad := range []string{"", ".", "*", "*.", "a..b", "a b", "a/b", "a:1", "*.*.a", strings.Repeat("a", 300)} {
		if err := s.add(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "192.0.2.1": "192.0.2.1/32", "2001:db8::/32": "2001:db8::/32", "::1": "::1/128",
		"::ffff:10.0.0.0/104": "10.0.0.0/8", "::ffff:192.0.2.1": "192.0.2.1/32", "0.0.0.0/0": "0.0.0.0/0",
		"10.0.0.1/8": "", "10.0.0.0/33": "", "fe80::1%eth0": "", "x": "", "": "", "10.0.0": "",
	} {
		p, err := parsePrefix(text)
		if want == "" && err == nil || want != "" && (err != nil || p.String() != want) {
			t.Errorf("%q: %v (%v), want %q", text, p, err, want)
		}
	}
}
