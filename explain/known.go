package explain

import (
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
// attached to the finding that it explains.
func (c *Case) attachKnown(all []Finding) []Finding {
	if c.Crash.Trace == nil {
		return all
	}
	known, err := advisory.All()
	if err != nil {
		return all
	}
	for _, adv := range known {
		frames := adv.MatchStack(functions(c.Crash.Trace, c.Crash.Culprit))
		if frames == nil {
			continue
		}
		verdict := adv.CheckCode(c.Kernel)
		if verdict.State == advisory.Fixed {
			continue
		}
		k := &Known{Advisory: adv, Stack: true, Code: verdict.State.String()}
		for _, f := range frames {
			k.Signs = append(k.Signs, f+" is on the stack")
		}
		if verdict.Reason != "" {
			k.Signs = append(k.Signs, verdict.Reason)
			k.Check = "dis " + verdict.Function
		}
		if len(all) == 0 {
			all = append(all, Finding{Analyzer: "advisory", Class: Class(adv.Class), Title: adv.Title, Confidence: Likely})
		}
		f := &all[0]
		f.Advisory = k
		f.Advice = append(f.Advice, adv.Advice()...)
		break
	}
	return all
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
