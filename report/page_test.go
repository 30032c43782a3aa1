package report

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestContrast holds the page's colours to WCAG 2.2, level AA: 4.5 to 1 for text.
func TestContrast(t *testing.T) {
	light, dark, found := strings.Cut(pageCSS, "prefers-color-scheme: dark")
	if !found {
		t.Fatal("the page has no colours for the dark")
	}
	for name, css := range map[string]string{"light": light, "dark": dark} {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(css, -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for page, texts := range map[string][]string{
			"page":      {"text", "quiet", "link", "bad"},
			"raised":    {"text", "quiet", "link", "bad"},
			"bad-page":  {"text", "quiet", "link", "bad"},
			"good-page": {"text", "quiet", "good"},
			"warn-page": {"text", "quiet", "link", "warn"},
		} {
			for _, text := range texts {
				a, b := colours[page], colours[text]
				if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < 4.5 {
					t.Errorf("%s: %s on %s has a contrast of %.1f", name, text, page, ratio)
				}
			}
		}
	}
}

// luminance is that of WCAG.
func luminance(t *testing.T, hex string) float64 {
	v, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(v uint64) float64 {
		c := float64(v&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(v>>16) + 0.7152*linear(v>>8) + 0.0722*linear(v)
}

func TestLinks(t *testing.T) {
	a := &addresses{rows: map[uint64]*address{}, other: map[uint64]string{0xffffffff81000002: "frame-1"}}
	a.see(0xffff888000001000, seen{"reg-rax", "rax"})
	a.see(0x20, seen{"reg-rbx", "rbx"})
	for _, tt := range []struct {
		text string
		want []piece
	}{
		{"", []piece{{}}},
		{"no address, 0x20 bytes", []piece{{Text: "no address, 0x20 bytes"}}},
		{"at 0xffff888000001000.", []piece{{Text: "at "}, {"0xffff888000001000", "a-ffff888000001000"}, {Text: "."}}},
		{"RAX: ffff888000001000", []piece{{Text: "RAX: "}, {"ffff888000001000", "a-ffff888000001000"}}},
		{"0xffffffff81000002", []piece{{"0xffffffff81000002", "frame-1"}}},
		{"0xffff888000001008", []piece{{Text: "0xffff888000001008"}}},
		{"0xffff888000001000ff", []piece{{Text: "0xffff888000001000ff"}}},
		{"hidden 00000000ace1b790", []piece{{Text: "hidden 00000000ace1b790"}}},
	} {
		if got := a.link(tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("link(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

// TestManyAddresses bounds what a page looks up.
func TestManyAddresses(t *testing.T) {
	a := &addresses{rows: map[uint64]*address{}}
	for i := range uint64(10 * maxAddresses) {
		a.see(0xffff888000000000+i, seen{"evidence", "evidence"})
	}
	if len(a.rows) != maxAddresses {
		t.Errorf("%d rows", len(a.rows))
	}
}

func TestExampleLinks(t *testing.T) {
	c, findings := example(t)
	st := tell(c, findings, pageLogBefore, pageLogAfter)
	page := renderPage(t, st)
	for _, want := range []string{`id="crash-line"`, `id="frame-`, `id="reg-rip"`, `href="#a-`, `class="trap"`, "prefers-color-scheme: dark"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}
