package lab

import (
	"fmt"
	"slices"
	"strings"
)

// Answer is what was said of a dump: by its first finding, the cause.
type Answer struct {
	Class      string   `json:"class,omitempty"` // as in package explain; "" when nothing was found
	Title      string   `json:"title,omitempty"`
	Confidence string   `json:"confidence,omitempty"`
	Signature  string   `json:"signature,omitempty"` // that dumps of one bug share
	Names      []string `json:"names,omitempty"`     // the functions, types and slab caches that it names
	Error      string   `json:"error,omitempty"`     // why nothing could be said
}

// Judgement is how an answer stands against the truth.
type Judgement string

// The judgements. The last three are no judgements of an answer.
const (
	Right      Judgement = "right"      // class, and function or object
	Wrong      Judgement = "wrong"      // it says something else
	Silent     Judgement = "silent"     // it says nothing
	NotJudged  Judgement = "-"          // there is no dump, or nobody was asked
	Unexpected Judgement = "unexpected" // the kernel did something else than it ought to
	NotOffered Judgement = "not there"  // the kernel has no such thing
	Failed     Judgement = "failed"     // it could not be run
)

// unknown is the class of a crash without a cause.
const unknown = "unknown"

// judge holds the cell's answer against its truth.
func (c *Cell) judge() {
	switch {
	case c.Offers != nil && !slices.Contains(c.Offers, c.Scenario):
		c.Judgement, c.Reason = NotOffered, "the kernel does not have it"
	case c.Truth.Outcome != "" && c.Outcome != c.Truth.Outcome:
		c.Judgement, c.Reason = Unexpected, fmt.Sprintf("it ended in %s, not %s", c.Outcome, c.Truth.Outcome)
	case c.Answer == nil:
		c.Judgement, c.Reason = NotJudged, ""
	default:
		c.Judgement, c.Reason = c.Truth.Judge(*c.Answer)
	}
}

// Judge holds an answer against the truth, and says why it is not right. Right is who
// has the class, and names the function to blame or the object that it happened to;
// where nothing went wrong, who says nothing.
func (t *Truth) Judge(a Answer) (Judgement, string) {
	silent := a.Class == "" || a.Class == unknown
	switch {
	case len(t.Classes) == 0 && a.Class == "":
		return Right, ""
	case len(t.Classes) == 0:
		return Wrong, "nothing went wrong that a dump shows"
	case silent && a.Error != "":
		return Silent, a.Error
	case silent:
		return Silent, ""
	case !slices.Contains(t.Classes, a.Class):
		return Wrong, fmt.Sprintf("%s is not %s", a.Class, strings.Join(t.Classes, " or "))
	case len(t.Culprits) > 0 && !a.names(t.Culprits...) && !a.names(t.Object):
		return Wrong, "it does not name " + strings.Join(t.Culprits, " or ")
	}
	return Right, ""
}

// names reports whether the answer has one of some names. What compilers add to the
// name of a part of a function (.constprop.0, .isra.0, .cold) does not count.
func (a *Answer) names(wanted ...string) bool {
	return slices.ContainsFunc(a.Names, func(name string) bool {
		name, _, _ = strings.Cut(name, ".")
		return slices.Contains(wanted, name)
	})
}
