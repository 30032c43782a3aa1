package wire

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, e := range []Event{
		{Kind: Up, Guest: &Guest{Release: "6.1.0-56-cloud-amd64", Version: "#1 SMP", BuildID: "3b43", CPUs: 2}},
		{Kind: Ready, Tasks: []Task{{PID: 90, TGID: 89, Comm: "w-pipe\n", Stack: []string{"pipe_read+0x3df"}}}},
		{Kind: Begin, Name: "sysrq", Task: &Task{PID: 1, TGID: 1, Comm: "init"}},
		{Kind: Fact, Name: "held", Value: 2.0},
		{Kind: Fact, Name: "request_sock", Value: []any{"0xffff99f4a6ffc3f0", true}},
		{Kind: Done, Bytes: 1 << 40},
		{Kind: Failed, Text: "mount", Error: "no such device"},
	} {
		line := e.Line()
		got, err := Parse(append(line[:len(line)-1], "\r\n"...))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Error(diff)
		}
	}
	for _, line := range []string{"", "\r\n", "{}", "[]", `{"event":"up"} {"event":"up"}`, "panic: out of memory", `{"event":1}`} {
		if e, err := Parse([]byte(line)); !errors.Is(err, ErrNotEvent) {
			t.Errorf("Parse(%q) = %+v, %v", line, e, err)
		}
	}
}

func TestLine(t *testing.T) {
	e := Event{Kind: Fact, Name: "ratio", Value: math.Inf(1)} // for which JSON has no form
	if got, err := Parse(e.Line()); err != nil || got.Value != "+Inf" {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"event":"ready","tasks":[{"pid":1,"tgid":1,"comm":"init"}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(e.Line())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e.Line(), again.Line()); diff != "" {
			t.Error(diff)
		}
	})
}
