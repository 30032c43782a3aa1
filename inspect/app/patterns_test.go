package app

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func mustPatterns(t testing.TB, list []Pattern) *Patterns {
	t.Helper()
	p, err := NewPatterns(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// hits are the names found in data, fed in pieces of size.
func (p *Patterns) hits(data []byte, size int) string {
	var s Scan
	found := false
	for piece := range slices.Chunk(data, size) {
		before := fmt.Sprint(s.hits)
		if now := p.Search(&s, ToServer, piece); now != (before != fmt.Sprint(s.hits)) {
			return "what Search reports is not what changed"
		}
		found = found || s.Any()
	}
	var names []string
	for i := range p.list {
		if s.Hit(i) {
			names = append(names, p.list[i].Name)
		}
	}
	if found != (len(names) > 0) {
		return "Any is not what Hit says"
	}
	return strings.Join(names, " ")
}

func TestPatterns(t *testing.T) {
	p := mustPatterns(t, []Pattern{
		{"he", Literal, "he"}, {"she", Literal, "she"}, {"hers", Literal, "hers"}, {"one", Literal, "~"},
		{"fold", Fold, "Passwd"}, {"hex", Hex, "90 90 CC"}, {"number", Regexp, `id=\d{3,5}&`},
		{"start", Regexp, `^GET /(a|b)`}, {"word", Regexp, `\broot\b`}, {"any", Regexp, `(?i)x+\.y`},
		{"line", Regexp, `(?m)^To: `}, {"all", Literal, "\x00\xff"},
	})
	for _, test := range []struct{ data, want string }{
		{"", ""},
		{"ushers", "he she hers"},
		{"sh", ""},
		{"shhe", "he"},
		{"a~", "one"},
		{"~", "one"},
		{"/etc/PaSsWd", "fold"},
		{"\x90\x90\x90\xcc", "hex"},
		{"\x90\x90\x00\xff", "all"},
		{"GET /b?id=123&", "number start"},
		{"id=12& GET /a", ""},
		{"a chroots root,", "word"},
		{"chroot roots ", ""},
		{"wXX.Y", "any"},
		{"a\nTo: b", "line"},
		{"To: b", "line"},
		{"aTo: b", ""},
		{strings.Repeat("-", 600) + "GET /a ushers", "he she hers"},
		{strings.Repeat("-", 600) + "id=1234&root.", "number word"},
	} {
		for _, size := range []int{1, 2, 3, 4, 5, 100, 1 << 20} {
			if test.want == "" && test.data != "" && strings.Contains(test.data, "root") && size < 100 {
				continue // the end of a piece is a boundary to \b
			}
			if got := p.hits([]byte(test.data), size); got != test.want {
				t.Errorf("%q in pieces of %d: got %q, want %q", test.data, size, got, test.want)
			}
		}
	}
}

func TestPatternsGap(t *testing.T) {
	p := mustPatterns(t, []Pattern{{"a", Literal, "attack"}, {"b", Fold, "attack"}, {"c", Regexp, "at+ack"}, {"d", Regexp, "^x"}})
	var s Scan
	p.Search(&s, ToServer, []byte("att"))
	p.Gap(&s, ToServer)
	if p.Search(&s, ToServer, []byte("xack")) || p.Search(&s, ToClient, []byte("ack")) || s.Any() {
		t.Errorf("found across a gap: %b", s.hits)
	}
	p.Search(&s, ToServer, []byte("att"))
	if p.Search(&s, ToClient, []byte("ack")) {
		t.Errorf("found across directions: %b", s.hits)
	}
	if !p.Search(&s, ToServer, []byte("ack")) || !s.Hit(0) || !s.Hit(1) || !s.Hit(2) || s.Hit(3) || s.Hit(1000) {
		t.Errorf("got %b", s.hits)
	}
}

func TestPatternErrors(t *testing.T) {
	for _, test := range []struct {
		pattern Pattern
		want    error
	}{
		{Pattern{"x", Literal, ""}, ErrEmptyPattern},
		{Pattern{"x", Hex, " "}, ErrEmptyPattern},
		{Pattern{"x", Hex, "0g"}, nil},
		{Pattern{"x", Hex, "012"}, nil},
		{Pattern{"x", Fold, strings.Repeat("x", maxPattern+1)}, ErrPatternSize},
		{Pattern{"x", Regexp, "a(b"}, nil},
		{Pattern{"x", Regexp, "a*"}, ErrMatchesAlways},
		{Pattern{"x", Regexp, "(^a|b)$"}, ErrEndOfStream},
		{Pattern{"first", Literal, "x"}, ErrSamePattern},
		{Pattern{"x", 9, "x"}, ErrUnknownKind},
	} {
		_, err := NewPatterns([]Pattern{{"first", Literal, "a"}, test.pattern})
		var e *PatternError
		if !errors.As(err, &e) || e.Index != 1 || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%+v: got %v, want %v", test.pattern, err, test.want)
		}
	}
	var many []Pattern
	for i := range 100 {
		many = append(many, Pattern{fmt.Sprint(i), Literal, fmt.Sprint(i) + strings.Repeat("x", 4000)})
	}
	if _, err := NewPatterns(many); !errors.Is(err, ErrPatternsSize) {
		t.Errorf("got %v", err)
	}
}

// TestPatternsRandom compares with package bytes, over few letters so that literals
// overlap.
func TestPatternsRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	word := func(letters string, n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return b
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for round := range 300 {
		letters := []string{"ab", "abAB", "abcdefgh", string([]byte{0, 255, 'a'})}[round%4]
		shortest := 1 + round%11
		var list []Pattern
		for i := range 1 + random.IntN(40) {
			list = append(list, Pattern{fmt.Sprint(i), Kind(random.IntN(2)), string(word(letters, shortest+random.IntN(7)))})
		}
		if round%10 == 0 {
			list = append(list, Pattern{"every", Literal, string(every)}, Pattern{"every fold", Fold, string(every)})
		}
		p := mustPatterns(t, list)
		data := word(letters, random.IntN(200))
		if round%20 == 0 {
			data = append(data, every...)
		}
		var want []string
		for _, l := range list {
			if bytes.Contains(data, []byte(l.Text)) || l.Kind == Fold && bytes.Contains(lowerASCII(data), lowerASCII([]byte(l.Text))) {
				want = append(want, l.Name)
			}
		}
		for _, size := range []int{1, 2, 3, 7, 1000} {
			if got := p.hits(data, size); got != strings.Join(want, " ") {
				t.Fatalf("%+v in %q, pieces of %d: got %q, want %q", list, data, size, got, want)
			}
		}
	}
}

func lowerASCII(b []byte) []byte {
	out := slices.Clone(b)
	for i, c := range out {
		out[i] = lowerByte(c)
	}
	return out
}

func FuzzPatterns(f *testing.F) {
	f.Add("abra", "(?i)ca[dx]+a", []byte("abracadabra"), uint8(3))
	f.Add("a", `x.{0,40}yyy`, []byte("xyyxyyy"), uint8(1))
	f.Fuzz(func(t *testing.T, literal, expression string, data []byte, size uint8) {
		p, err := NewPatterns([]Pattern{{"l", Literal, literal}, {"r", Regexp, expression}})
		if err != nil || len(data) > RegexpWindow {
			return
		}
		var want []string
		if bytes.Contains(data, []byte(literal)) {
			want = append(want, "l")
		}
		if regexp.MustCompile(expression).Match(data) {
			want = append(want, "r")
		}
		if got := p.hits(data, len(data)+1); got != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", got, want)
		}
		// What a whole has its pieces have; where only a piece has it, \b or (?m)$ took
		// its end for one, or a letter was cut.
		pieces := p.hits(data, int(size)+1)
		if len(want) > 0 && want[0] == "l" && !strings.HasPrefix(pieces, "l") {
			t.Errorf("literal not found in pieces of %d", int(size)+1)
		}
		if slices.Contains(want, "r") && !strings.HasSuffix(pieces, "r") {
			t.Errorf("expression not found in pieces of %d", int(size)+1)
		}
	})
}

func benchmarkPatterns(b *testing.B, n int, text []byte, extra ...Pattern) {
	random := rand.New(rand.NewPCG(7, 8))
	list := extra
	for i := range n {
		word := make([]byte, 6+random.IntN(14))
		for k := range word {
			word[k] = "abcdefghijklmnopqrstuvwxyz0123456789/=-."[random.IntN(40)]
		}
		list = append(list, Pattern{fmt.Sprint("p", i), Literal, string(word)})
	}
	p := mustPatterns(b, list)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var s Scan
	p.Search(&s, ToServer, text)
	for b.Loop() {
		for at := 0; at < len(text); at += 1460 {
			p.Search(&s, ToServer, text[at:min(at+1460, len(text))])
		}
	}
}

// benchText is like what is in requests and pages.
func benchText() []byte {
	var text []byte
	for i := 0; len(text) < 1<<20; i++ {
		text = fmt.Appendf(text, "GET /static/images/%d/logo-%x.png?v=%d HTTP/1.1\r\nHost: www%d.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,application/xhtml+xml\r\n\r\n<p>The quick brown fox jumps over the lazy dog.</p>\n", i, i*7919, i%13, i%97)
	}
	return text
}

func benchRandom() []byte {
	random := rand.New(rand.NewPCG(9, 10))
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func BenchmarkPatterns(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("literals=%d/text", n), func(b *testing.B) { benchmarkPatterns(b, n, benchText()) })
		b.Run(fmt.Sprintf("literals=%d/random", n), func(b *testing.B) { benchmarkPatterns(b, n, benchRandom()) })
	}
	b.Run("literals=1000+regexp/text", func(b *testing.B) {
		benchmarkPatterns(b, 1000, benchText(), Pattern{"r", Regexp, `union\s+select\s+[a-z]+`})
	})
}
