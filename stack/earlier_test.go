package stack

import "testing"

// TestAlways asks of small functions whether a call that was given a pointer is on every
// way to where the pointer is read through. The function reads (%rax), which it has read
// from 0x40(%rbx) before.
func TestAlways(t *testing.T) {
	for _, tt := range []struct {
		name, asm, code string
		call, use       uint64 // offsets
		same, always    bool   // the call was given the pointer; it is on every way
	}{
		{"straight on",
			"push %rbx; mov %rdi,%rbx; call f; mov 0x40(%rbx),%rax; mov (%rax),%rsi",
			"0f 1f 04 00 53 48 89 fb e8 00 00 10 00 48 8b 43 40 48 8b 30 5b c3", 0x08, 0x11, true, true},
		{"on one way only",
			"push %rbx; mov %rdi,%rbx; test %esi,%esi; je 1f; call f; 1: mov 0x40(%rbx),%rax; mov (%rax),%rsi",
			"0f 1f 04 00 53 48 89 fb 85 f6 74 05 e8 00 00 10 00 48 8b 43 40 48 8b 30 5b c3", 0x0c, 0x15, true, false},
		{"behind the use, in the turn of a loop before",
			"push %rbx; 1: call g; mov %rax,%rbx; mov 0x40(%rbx),%rax; mov (%rax),%rsi; mov %rbx,%rdi; call f; dec %esi; jne 1b",
			"0f 1f 04 00 53 e8 00 00 10 00 48 89 c3 48 8b 43 40 48 8b 30 48 89 df e8 00 00 20 00 ff ce 75 e5 5b c3", 0x17, 0x11, true, false},
		{"the call that made the pointer",
			"push %rbx; 1: call g; mov %rax,%rbx; mov 0x40(%rbx),%rax; mov (%rax),%rsi; mov %rbx,%rdi; call f; dec %esi; jne 1b",
			"0f 1f 04 00 53 e8 00 00 10 00 48 89 c3 48 8b 43 40 48 8b 30 48 89 df e8 00 00 20 00 ff ce 75 e5 5b c3", 0x05, 0x11, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := codeOf(t, tt.code).flow()
			if err != nil {
				t.Fatal(err)
			}
			use, err := f.at(testEntry + tt.use)
			if err != nil {
				t.Fatal(err)
			}
			from, ok := f.loads[use.regs[rax].root]
			if !ok || from.at.off != 0x40 {
				t.Fatalf("rax was read from %+v, %v", from.at, ok)
			}
			call, err := f.at(testEntry + tt.call)
			if err != nil {
				t.Fatal(err)
			}
			if same := call.regs[rdi].root == from.at.root; same != tt.same {
				t.Errorf("the call was given the pointer: %v, want %v", same, tt.same)
			}
			made := f.madeAt(from.at.root)
			if got := f.always(made, f.find(testEntry+tt.call), f.find(testEntry+tt.use)); got != tt.always {
				t.Errorf("on every way: %v, want %v", got, tt.always)
			}
		})
	}
}

// TestSourceConstant: a number in the code is where a register's value came from.
func TestSourceConstant(t *testing.T) {
	f, err := codeOf(t, "0f 1f 04 00 48 b8 6b 6b 6b 6b 6b 6b 6b 6b 48 8b 30 c3").flow() // movabs; mov (%rax),%rsi
	if err != nil {
		t.Fatal(err)
	}
	l, err := f.at(testEntry + 14)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := (&Unwinder{}).source(&activation{flow: f}, l.regs[rax])
	if !ok || !s.Const || uint64(s.Plus) != 0x6b6b6b6b6b6b6b6b || s.Addr != 0 {
		t.Errorf("%+v, %v", s, ok)
	}
}
