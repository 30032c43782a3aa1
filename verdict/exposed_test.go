package verdict

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"inquest/advisory"
)

func TestCarveOutDecide(t *testing.T) {
	tests := []struct {
		choice  CarveOut
		verdict advisory.Verdict
		err     error
		want    bool
		why     string
	}{
		{CarveOutAlways, advisory.Verdict{State: advisory.Fixed}, nil, true, "always"},
		{CarveOutNever, advisory.Verdict{State: advisory.Exposed}, nil, false, "never"},
		{CarveOutAuto, advisory.Verdict{State: advisory.Exposed, Reason: "calls sk_free"}, nil, true, "calls sk_free"},
		{CarveOutAuto, advisory.Verdict{State: advisory.Fixed, Reason: "calls sock_gen_put"}, nil, false, "calls sock_gen_put"},
		{CarveOutAuto, advisory.Verdict{}, nil, true, "not known"},
		{CarveOutAuto, advisory.Verdict{}, errors.New("no kcore here"), true, "no kcore here"},
	}
	for _, test := range tests {
		got, why := test.choice.decide(func() (advisory.Verdict, error) { return test.verdict, test.err })
		if got != test.want || !strings.Contains(why, test.why) {
			t.Errorf("%v with %v, %v: got %t, %q; want %t", test.choice, test.verdict, test.err, got, why, test.want)
		}
	}
}

// A dump is read as /proc/kcore is. That of the case's bug, taken from a kernel with the
// fix removed, must be seen to be exposed.
func TestExposed(t *testing.T) {
	v, err := exposed(filepath.Join("..", "testdata", "example.kdump"))
	if err != nil {
		t.Fatal(err)
	}
	if v.State != advisory.Exposed || !strings.Contains(v.Reason, "sk_free") {
		t.Errorf("got %v, %q", v.State, v.Reason)
	}
	if _, err := exposed(filepath.Join(t.TempDir(), "kcore")); err == nil {
		t.Error("no error without a kcore")
	}
}
