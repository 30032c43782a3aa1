package spelling

import (
	"slices"
	"strings"
	"testing"
)

func TestClosest(t *testing.T) {
	names := []string{"tcp_v4_rcv", "tcp_v6_rcv", "udp_rcv", "schedule", "__schedule", "schedule_timeout"}
	for _, c := range []struct {
		name string
		want []string
	}{
		{"tcp_v4_rvc", []string{"tcp_v4_rcv", "tcp_v6_rcv"}},
		{"shedule", []string{"schedule"}},
		{"_schedule", []string{"schedule", "__schedule"}},
		{"nf_reinject", nil},
		{"", nil},
	} {
		if got := Closest(c.name, names); !slices.Equal(got, c.want) {
			t.Errorf("Closest(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "abd", 1}, {"abc", "abcd", 1}, {"kitten", "sitting", 3},
	} {
		if got := distance(c.a, c.b, 5); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a, 5); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.b, c.a, got, c.want)
		}
	}
	if got := distance("x", strings.Repeat("x", 1000), 5); got != 6 {
		t.Errorf("a long name is %d away, want over the limit", got)
	}
}
