package console

import "time"

// Line is a line of a log without what stood in front of it.
type Line struct {
	Number int64 // in the text, from 1
	Text   string
	Time   time.Duration // since boot
	Timed  bool
	Level  int    // 0 emergency … 7 debug; -1 when not said
	Caller string // "T123" or "C1"; "" when not said
	Source string // the machine that wrote it; "" when not said
}

// Report is one report of trouble: the line that opens it and what its other lines say.
type Report struct {
	Kind    Kind
	Message string // the line that opens it
	Also    []Also // other lines that open a report and belong to this one
	Boot    int    // number of the boot in the text that it is from, from 0
	Opening Line
	Before  []Line // what the log had in front of it
	Lines   []Line // all of it, from the opening line on
	Cut     bool   // there was more than is kept
	Ended   bool   // "end trace" was there
	Panic   string // the reason of the panic that it led to
	Fatal   bool   // the machine did not survive it

	What       string // what the opening line says, by kind: "use-after-free", "divide error" …
	Function   Frame  // the function that the opening line names; Symbol is "" when none
	Other      string // the other function of a data race
	Place      string // file:line of a BUG or WARNING
	Address    uint64
	HasAddress bool
	Access     string // "read", "write" or "execute"; "" when not said
	Size       int    // of the access in bytes; 0 when not said
	ErrorCode  uint64
	HasCode    bool
	Cache      string // the slab cache
	Object     uint64 // address of the object; 0 when not said
	ObjectSize int
	Where      string // where the address lies, in the kernel's words
	Details    []string

	CPU, PID  int // -1 when not said
	Comm      string
	Release   string
	Taint     string // letters; "" when not tainted, or not said
	Hardware  string
	Workqueue string
	Modules   []Module
	Sections  []Section
	Code      []byte // around the program counter
	NoCode    bool   // the kernel could not read the code there
	CodeAt    int    // index in Code of the trapped instruction; -1 when not said

	weak    bool  // only with a stack
	stacked bool  // a stack was there
	bytes   int   // in Lines
	last    int64 // number of the last line that looked like a part of it
}

// Also is a further opening line of a report.
type Also struct {
	Kind Kind
	Text string
}

// Module is an entry of "Modules linked in".
type Module struct {
	Name   string
	Taints string // letters
}

// Role says what a section of a report is about.
type Role int

// The roles.
const (
	Main      Role = iota
	Allocated      // where the object was allocated
	Freed          // where it was freed
	Origin         // where the uninitialised value came from
	OnCPU          // what another CPU was doing
	OnTask         // what another task was doing
	Race           // one side of a data race
	Chain          // how a lock came into the chain of a deadlock
	Backtrace      // the stack of who made the report, where that is not Main
	Related        // other work with the object
)

// Section is a part of a report: a stack, with the registers and the task it is of.
type Section struct {
	Role      Role
	Title     string // the line in front of it; "" for the first
	Line      int64
	CPU, PID  int // -1 when not said
	Comm      string
	State     string // of a task: "D" …
	PC        *Frame // nil when not said
	LR        *Frame // the link register of machines that have one
	Registers []Register
	Frames    []Frame // innermost first
}

// Register is the value of a register.
type Register struct {
	Name  string // lower case
	Value uint64
}

// Get returns the value of a register.
func (s *Section) Get(name string) (uint64, bool) {
	for _, r := range s.Registers {
		if r.Name == name {
			return r.Value, true
		}
	}
	return 0, false
}

// Main is the section on what the report is about: the first with a stack or a program
// counter that is nothing else.
func (r *Report) Main() *Section {
	var first *Section
	for i := range r.Sections {
		s := &r.Sections[i]
		if s.Role == Main && (s.PC != nil || len(s.Frames) > 0) {
			if len(s.Frames) > 0 {
				return s
			}
			if first == nil {
				first = s
			}
		}
	}
	return first
}

// Section returns the first section of a role that has frames, nil when there is none.
func (r *Report) Section(role Role) *Section {
	for i := range r.Sections {
		if s := &r.Sections[i]; s.Role == role && len(s.Frames) > 0 {
			return s
		}
	}
	return nil
}

// Log is what a text says.
type Log struct {
	Format  string // "dmesg", "journal or syslog", "pstore", "netconsole", "crash session"
	Lines   int64
	Bytes   int64
	Release string // of the last kernel that introduced itself
	Sources []string
	Boots   int // how often a kernel introduced itself
	Reports []*Report
	Dropped int // reports that there was no room for
	Tail    []Line
	Machine string // the architecture, as uname -m has it; "" when not told
}
