package report

import (
	"fmt"
	"strings"

	"inquest/kernel"
	"inquest/stack"
)

// frame is a frame of a stack in words.
type frame struct {
	Index int
	PC    kernel.Addr
	SP    kernel.Addr
	Name  string // "function+0x12 [module]"
	Trap  bool   // an exception interrupted it: that of the crash
	Guess bool
	Again int // so many more frames like it follow: recursion
	Args  []argument
	Tail  []tail
}

// tail is a function between a frame and its caller, which left by a tail call.
type tail struct {
	Name string
	Note string
	Args []argument
}

// argument is a parameter in words.
type argument struct {
	Name    string
	Decl    string  // as C declares it
	Value   *uint64 // nil when unknown
	Pointer bool
	Text    string // what there is to say: how the value was found, or what is known in its place
}

func newFrame(i int, f *stack.Frame) frame {
	out := frame{Index: i, PC: f.PC, SP: f.SP, Name: frameName(f), Guess: f.Guess, Args: newArguments(f.Args)}
	for _, t := range f.Tail {
		out.Tail = append(out.Tail, tail{clean(t.Symbol.Name), tailNote(t), newArguments(t.Args)})
	}
	return out
}

func newArguments(args []stack.Arg) []argument {
	var out []argument
	for _, a := range args {
		arg := argument{Name: clean(a.Name), Decl: clean(declare(a)), Pointer: strings.Contains(a.Type, "*"), Text: clean(a.From)}
		switch {
		case a.Known:
			v := a.Value
			arg.Value = &v
		case a.Again != nil:
			arg.Text = clean(fmt.Sprintf("lost; it was %s, which is now %#x", a.Again.Expr, a.Again.Value))
		}
		out = append(out, arg)
	}
	return out
}

func tailNote(t stack.TailCall) string {
	if t.OneOf {
		return "left by a tail call; there are other ways"
	}
	return "left by a tail call"
}

// known lists the parameters that are known: "sk=0xff36ff3c40d87000".
func known(args []argument) string {
	var parts []string
	for _, a := range args {
		if a.Value != nil && a.Decl != a.Name {
			parts = append(parts, fmt.Sprintf("%s=%#x", a.Name, *a.Value))
		}
	}
	return strings.Join(parts, " ")
}

// frameName is a frame's function as crash prints it, with the offset, which crash
// prints only on demand.
func frameName(f *stack.Frame) string {
	if f.Symbol.Name == "" {
		return f.PC.String() + " (no symbol)"
	}
	return clean(f.Name())
}
