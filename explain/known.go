package explain

import (
	"fmt"

	"inquest/advisory"
	"inquest/stack"
)

// Known is a known bug that the dump shows signs of.
type Known struct {
	*advisory.Advisory
	Stack bool     `json:"stack_matches"` // the crashed stack is that of the bug
	Code  string   `json:"code"`          // "exposed", "fixed" or "unknown": what the dump's own code says
	Signs []string `json:"signs"`
	Check string   `json:"check,omitempty"` // the command that shows the code
}

// attachKnown compares the crashed stack and the kernel's code with the known
// bugs. One whose stack matches, on a kernel whose code has not been fixed, is
// attached to the finding that it explains; or else one that confuses objects as the
// finding says.
func (c *Case) attachKnown(all []Finding) []Finding {
	if c.Crash.Trace == nil {
		return all
	}
	known, err := advisory.All()
	if err != nil {
		return all
	}
	stack := functions(c.Crash.Trace, c.Crash.Culprit)
	for _, adv := range known {
		frames := adv.MatchStack(stack)
		if frames == nil {
			continue
		}
		verdict := adv.CheckCode(c.Kernel)
		if verdict.State == advisory.Fixed {
			continue
		}
		if len(all) == 0 {
			all = append(all, Finding{Analyzer: "advisory", Class: Class(adv.Class), Title: adv.Title, Confidence: Likely})
		}
		var signs []string
		for _, f := range frames {
			signs = append(signs, f+" is on the stack")
		}
		attach(&all[0], adv, verdict, true, signs)
		return all
	}
	if len(all) > 0 {
		c.attachConfused(&all[0], known)
	}
	return all
}

// attachConfused attaches the bug that takes just such an object for another, on a kernel
// whose code has that bug: its traces on the stack may be long gone.
func (c *Case) attachConfused(f *Finding, known []*advisory.Advisory) {
	if len(f.Objects) == 0 || f.Objects[0].TakenFor == nil {
		return
	}
	object, taken := f.Objects[0].Type, f.Objects[0].TakenFor.Type
	for _, adv := range known {
		if !adv.MatchConfusion(object, taken) {
			continue
		}
		if verdict := adv.CheckCode(c.Kernel); verdict.State == advisory.Exposed {
			attach(f, adv, verdict, false, []string{fmt.Sprintf("%s was taken for %s", article(object), article(taken))})
			return
		}
	}
}

func attach(f *Finding, adv *advisory.Advisory, verdict advisory.Verdict, stack bool, signs []string) {
	k := &Known{Advisory: adv, Stack: stack, Code: verdict.State.String(), Signs: signs}
	if verdict.Reason != "" {
		k.Signs = append(k.Signs, verdict.Reason)
		k.Check = "dis " + verdict.Function
	}
	f.Advisory = k
	f.Advice = append(f.Advice, adv.Advice()...)
}

// functions are the names on a stack from a frame outwards.
func functions(t *stack.Trace, from int) []string {
	var names []string
	for _, f := range t.Frames[min(from, len(t.Frames)):] {
		if !f.Guess {
			names = append(names, base(f.Symbol.Name))
		}
	}
	return names
}
