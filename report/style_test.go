package report

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestShortPaths(t *testing.T) {
	for _, tt := range []struct {
		path       string
		n          int
		head, tail string
	}{
		{"sock.sk_lock", 12, "sock.sk_lock", "sock.sk_lock"},
		{"sock.sk_lock.raw.counter", 20, "sock.sk_lock.raw...", "...raw.counter"},
		{"sock.sk_lock.raw.counter", 15, "sock.sk_lock...", "...raw.counter"},
		{"sock.sk_lock.raw.counter", 14, "sock...", "...raw.counter"},
		{"sock.sk_lock.raw.counter", 6, "sock.…", "sock.…"},
		{"nodots", 3, "no…", "no…"},
		{"", 0, "", ""},
		{"a.b", 0, "…", "…"},
	} {
		if got := headOf(tt.path, tt.n); got != tt.head {
			t.Errorf("headOf(%q, %d) = %q, want %q", tt.path, tt.n, got, tt.head)
		}
		if got := tailOf(tt.path, tt.n); got != tt.tail {
			t.Errorf("tailOf(%q, %d) = %q, want %q", tt.path, tt.n, got, tt.tail)
		}
	}
}

func TestWrap(t *testing.T) {
	s := Style{Width: 40}
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", []string{"* "}},
		{"one  two\n three", []string{"* one two three"}},
		{strings.Repeat("word ", 9), []string{"* word word word word word word word", "  word word"}},
		{"a " + strings.Repeat("x", 80), []string{"* a", "  " + strings.Repeat("x", 38), "  " + strings.Repeat("x", 38), "  xxxx"}},
	} {
		if got := s.wrap("* ", "  ", tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("wrap(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestFold(t *testing.T) {
	s := Style{Width: 40}
	line := "[    1.000000] " + strings.Repeat("word ", 8)
	want := []string{"  [    1.000000] word word word word", "    word word word word "}
	if got := s.fold(2, "  ", "    ", line); !slices.Equal(got, want) {
		t.Errorf("fold = %q, want %q", got, want)
	}
	for _, l := range s.fold(3, "  ", "    ", strings.Repeat("x", 500)) {
		if utf8.RuneCountInString(l) > 40 {
			t.Errorf("%q is too wide", l)
		}
	}
	if got := (Style{Width: 40, Verbose: true}).fold(1, "", "", strings.Repeat("x", 400)); len(got) != 10 {
		t.Errorf("a verbose style folds 400 characters into %d lines of 40", len(got))
	}
}

func TestCapital(t *testing.T) {
	for text, want := range map[string]string{
		"a tcp_sock was taken": "A tcp_sock was taken",
		"panic: reason":        "Panic: reason",
		"kmem_cache went":      "kmem_cache went",
		"NULL pointer":         "NULL pointer",
		"":                     "",
	} {
		if got := capital(text); got != want {
			t.Errorf("capital(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestBrief(t *testing.T) {
	long := " (f: rbx, saved by g at 0xffffc90000000000, loaded by h, minus 0x2b8)"
	for text, want := range map[string]string{
		"sk was passed" + long:          "sk was passed",
		"sk was passed (rdi)":           "sk was passed (rdi)",
		"sk was passed" + long + "; so": "sk was passed" + long + "; so",
	} {
		if got := brief(text); got != want {
			t.Errorf("brief(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestProse(t *testing.T) {
	for text, want := range map[string]string{
		"nf_queue_entry":       "nf_queue_entry",
		"__sk_free":            `\_\_sk_free`,
		"a * b [c](d) <e>":     `a \* b \[c\](d) \<e\>`,
		"- item":               `\- item`,
		"12. item":             `12\. item`,
		"see @root in #12":     "see `@`root in `#`12",
		"http://x and www.y.z": "http`://`x and `www.`y.z",
		"f+0x10":               "f+0x10",
	} {
		if got := prose(text); got != want {
			t.Errorf("prose(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestLong lays out texts that would show anything that is not linear in them.
func TestLong(t *testing.T) {
	const n = 1 << 20
	start := time.Now()
	for _, s := range []string{strings.Repeat(".", n), strings.Repeat("1", n/2) + strings.Repeat(".", n/2), strings.Repeat("`", n), strings.Repeat("`a", n/2), strings.Repeat("0x", n/2)} {
		headOf(s, 40)
		tailOf(s, 40)
		prose(s)
		code(s)
		brief(s)
		Style{}.wrap("", "", s)
		Style{}.fold(2, "", "", s)
		Style{Verbose: true}.fold(2, "", "", s)
		(&addresses{}).link(s)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
}
