package explain

import (
	"cmp"
	"slices"

	"inquest/kernel"
	"inquest/stack"
)

// Class is the kind of failure, one of a fixed list that other tools rely on.
type Class string

// The classes.
const (
	TypeConfusion   Class = "type-confusion"
	UseAfterFree    Class = "use-after-free"
	DoubleFree      Class = "double-free"
	OutOfBounds     Class = "out-of-bounds"
	NullDereference Class = "null-dereference"
	WildPointer     Class = "wild-pointer"
	ListCorruption  Class = "list-corruption"
	RefCount        Class = "refcount"
	StackOverflow   Class = "stack-overflow"
	Bug             Class = "bug"
	Warning         Class = "warning"
	HungTask        Class = "hung-task"
	SoftLockup      Class = "soft-lockup"
	HardLockup      Class = "hard-lockup"
	Deadlock        Class = "deadlock"
	RCUStall        Class = "rcu-stall"
	OutOfMemory     Class = "out-of-memory"
	DoubleFault     Class = "double-fault"
	MachineCheck    Class = "machine-check"
	DivideError     Class = "divide-error"
	BadInstruction  Class = "bad-instruction"
	UserPanic       Class = "user-panic"
	Unknown         Class = "unknown"
)

// Confidence says how far the evidence reaches.
type Confidence int

// From a guess worth a look to what the dump shows beyond doubt.
const (
	Possible Confidence = iota
	Likely
	Certain
)

func (c Confidence) String() string { return [...]string{"possible", "likely", "certain"}[c] }

// MarshalText writes the confidence as a word.
func (c Confidence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Evidence is one fact that a reader can check.
type Evidence struct {
	Text  string      `json:"text"`
	Addr  kernel.Addr `json:"-"`               // what it is about, 0 when no one address
	Check string      `json:"check,omitempty"` // the command that shows it, without "inquest" and the dump
	Line  int64       `json:"line,omitempty"`  // of the text that it stands in, from 1; 0 for a dump
}

// Object is a piece of memory that a finding is about.
type Object struct {
	Addr   kernel.Addr `json:"-"`
	Type   string      `json:"type"`             // of the struct; "" when not known
	Module string      `json:"module,omitempty"` // that has the struct; "" for the kernel
	Role   string      `json:"role"`
	Cache  string      `json:"cache,omitempty"` // the slab cache that it is from
	Size   uint64      `json:"size,omitempty"`  // bytes
	State  string      `json:"state,omitempty"` // "allocated", "free" or "unknown"; "" for what is no slab object
	Index  *int        `json:"index,omitempty"` // of the object in its slab
	// TakenFor is what the code took it for, nil where it did not take it for another.
	TakenFor *Taken `json:"taken_for,omitempty"`
}

// Taken is the struct that code took an object for.
type Taken struct {
	Type   string `json:"type"`
	Module string `json:"module,omitempty"` // that has the struct; "" for the kernel
	Size   uint64 `json:"size"`             // of the struct, in bytes
	Offset int64  `json:"offset"`           // of the pointer that the code had, from the object's start
}

// Pointer is how code came by the pointer to the object.
type Pointer struct {
	Value  kernel.Addr `json:"-"`
	Param  string      `json:"param"`    // that it was, of the first function
	To     []string    `json:"to"`       // the functions that were given it, innermost first
	Giver  string      `json:"given_by"` // who gave it to the first of them
	From   string      `json:"from"`     // how its value was found, in words
	Reread bool        `json:"reread"`   // the value is lost: it is what lies now where it was read from
}

// Overrun is a use of a member that lies outside of the object.
type Overrun struct {
	Member string      `json:"member"` // "sock.sk_callback_lock.wait_lock"
	Offset uint64      `json:"offset"` // of the member, from the pointer
	End    uint64      `json:"end"`    // of the object, from the pointer
	By     string      `json:"by"`     // the function that used it
	Addr   kernel.Addr `json:"-"`      // of the member
	How    string      `json:"how"`    // the code used it, in words
	Sure   bool        `json:"sure"`   // the code says so; else what lies there is what it used
	// Object is the object that the member lies in, by its number among the finding's
	// objects, with the offset in there and what is there if it is of the same type.
	// Object is 0 where it is not known.
	Object int    `json:"object,omitempty"`
	At     uint64 `json:"at,omitempty"`
	Is     string `json:"is,omitempty"`
}

// Finding is one thing that went wrong.
type Finding struct {
	Analyzer   string     `json:"analyzer"`
	Class      Class      `json:"class"`
	Title      string     `json:"title"`
	Confidence Confidence `json:"confidence"`
	Evidence   []Evidence `json:"evidence"`
	Objects    []Object   `json:"objects,omitempty"`
	Pointer    *Pointer   `json:"pointer,omitempty"` // to the first object, where it was passed on
	Advisory   *Known     `json:"advisory,omitempty"`
	Overrun    []Overrun  `json:"overrun,omitempty"`
	Advice     []string   `json:"advice,omitempty"`
	Blame      *Blame     `json:"blame,omitempty"`     // where to look first; nil where nothing says it
	Signature  string     `json:"signature,omitempty"` // that dumps of the same bug share
	// Trace is the stack of the task that it is about, where that is another than the
	// crashed one: a task that hung, or what another CPU was stuck in.
	Trace *stack.Trace `json:"-"`
	// Weight ranks what is certain or likely: a cause weighs more than what follows
	// from it.
	Weight int `json:"-"`

	culprit string        // the function that did it, where the analyzer knows; without suffixes
	via     string        // what else tells one bug in the culprit from another
	stack   []stack.Frame // on which it happened, where that is not the crashed CPU's
}

// rank is the weight of a finding, below all others for one that is only possible.
func rank(f Finding) int {
	if f.Confidence == Possible {
		return -1
	}
	return f.Weight
}

// Analyzer looks at a case for one kind of failure.
type Analyzer struct {
	Name string // as in Finding.Analyzer
	Doc  string // one sentence: what it looks for
	Run  func(*Case) []Finding
}

// Analyzers are all analyzers, in the order in which they run.
var Analyzers = []*Analyzer{
	Confusion,
	Overflow,
	Overcopy,
	FreedWrong,
	FreedTwice,
	UsedAfter,
	Fault,
	ListDebug,
	RefCounter,
	BugTrap,
	WarnTrap,
	Machine,
	Lockup,
	Stall,
	Deadlocked,
	StuckCPU,
	NoMemory,
	Reported,
	Panic,
}

// Findings runs every analyzer and ranks the findings: the first one is the cause.
// Known bugs that match are attached to it.
func (c *Case) Findings() []Finding {
	var all []Finding
	for _, a := range Analyzers {
		for _, f := range a.Run(c) {
			f.Analyzer = a.Name
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(b.Confidence, a.Confidence))
	})
	if c.Crash != nil {
		all = c.attachKnown(all)
	}
	for i := range all {
		c.blameFinding(&all[i])
		all[i].Signature = Signature(&all[i])
	}
	return all
}
