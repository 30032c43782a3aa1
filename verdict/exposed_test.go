package verdict

import (
	"errors"
	"strings"
	"testing"

	"inquest/advisory"
	"inquest/doctor/exposure"
)

func TestCarveOutDecide(t *testing.T) {
	answer := func(s advisory.State, sure exposure.Sure, reason string) exposure.Answer {
		return exposure.Answer{Verdict: advisory.Verdict{State: s, Reason: reason}, Sure: sure, Source: "/proc/kcore"}
	}
	tests := []struct {
		choice CarveOut
		answer exposure.Answer
		err    error
		want   bool
		why    string
	}{
		{CarveOutAlways, answer(advisory.Fixed, exposure.Code, ""), nil, true, "always"},
		{CarveOutNever, answer(advisory.Exposed, exposure.Code, ""), nil, false, "never"},
		{CarveOutAuto, answer(advisory.Exposed, exposure.Code, "calls sk_free"), nil, true, "calls sk_free (/proc/kcore)"},
		{CarveOutAuto, answer(advisory.Exposed, exposure.Version, "is old"), nil, true, "a guess"},
		{CarveOutAuto, answer(advisory.Fixed, exposure.Code, "calls sock_gen_put"), nil, false, "calls sock_gen_put"},
		{CarveOutAuto, answer(advisory.Fixed, exposure.File, "calls sock_gen_put"), nil, false, "calls sock_gen_put"},
		{CarveOutAuto, answer(advisory.Fixed, exposure.Version, "has the fix"), nil, true, "not known"},
		{CarveOutAuto, exposure.Answer{}, nil, true, "not known"},
		{CarveOutAuto, exposure.Answer{}, errors.New("no /proc here"), true, "no /proc here"},
	}
	for _, test := range tests {
		got, why := test.choice.decide(func() (exposure.Answer, error) { return test.answer, test.err })
		if got != test.want || !strings.Contains(why, test.why) {
			t.Errorf("%v with %+v, %v: got %t, %q; want %t", test.choice, test.answer, test.err, got, why, test.want)
		}
	}
}
