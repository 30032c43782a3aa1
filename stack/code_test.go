package stack

import (
	"errors"
	"testing"
)

// TestFrameAt follows small functions, written as machine code, to an offset.
func TestFrameAt(t *testing.T) {
	const start = 0xffffffff81000000
	tests := []struct {
		name string
		code string
		at   uint64
		want frame
		err  bool
	}{
		{"at the entry", "\x53\xc3", 0, frame{}, false},
		{"push and sub", // push %rbx; sub $0xb0,%rsp; nop
			"\x53\x48\x81\xec\xb0\x00\x00\x00\x90\xc3", 8, frame{depth: 0xb8}, false},
		{"saved rbp", // push %rbp; push %rbx; nop
			"\x55\x53\x90\xc3", 2, frame{depth: 16, savedBP: 8}, false},
		{"frame pointer, aligned stack", // push %rbp; mov %rsp,%rbp; and $-16,%rsp; nop
			"\x55\x48\x89\xe5\x48\x83\xe4\xf0\x90", 8, frame{depth: 8, lost: true, based: true, base: 8, savedBP: 8}, false},
		{"leave", // push %rbp; mov %rsp,%rbp; sub $32,%rsp; leave; ret
			"\x55\x48\x89\xe5\x48\x83\xec\x20\xc9\xc3", 9, frame{base: 8}, false},
		{"past a return that a jump goes over", // je +2; pop… ; push %rbx; je 1f; pop %rbx; ret; 1: nop
			"\x53\x74\x02\x5b\xc3\x90", 5, frame{depth: 8}, false},
		{"paths that differ", // je 1f; push %rbx; 1: nop
			"\x74\x01\x53\x90\xc3", 3, frame{}, true},
		{"behind a loop", // 1: push %rbx; pop %rbx; jne 1b; nop
			"\x53\x5b\x75\xfc\x90", 4, frame{}, false},
		{"no path", // ret; nop
			"\xc3\x90", 1, frame{}, true},
		{"more popped than pushed", // pop %rax; pop %rbx; nop
			"\x58\x5b\x90", 2, frame{}, true},
		{"rsp from elsewhere", // mov %rax,%rsp; nop
			"\x48\x89\xc4\x90", 3, frame{}, true},
	}
	for _, tt := range tests {
		got, err := frameAt([]byte(tt.code), start, start+tt.at)
		if (err != nil) != tt.err || err == nil && got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, errNoFrame) {
			t.Errorf("%s: error %v is not errNoFrame", tt.name, err)
		}
	}
}

func FuzzFrameAt(f *testing.F) {
	f.Add([]byte("\x55\x48\x89\xe5\x48\x83\xe4\xf0\x90"), uint16(8))
	f.Add([]byte("\x53\x5b\x75\xfc\x90"), uint16(4))
	f.Fuzz(func(t *testing.T, code []byte, at uint16) {
		const start = 0xffffffff81000000
		got, err := frameAt(code, start, start+uint64(at))
		if err == nil && !got.based && (got.lost || got.depth < 0) {
			t.Errorf("a frame that cannot be left: %+v", got)
		}
	})
}
