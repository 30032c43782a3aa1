package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}`

// qmpServer plays QEMU: it greets, and then answers each line that it reads with the
// next of its answers, until it has none left.
func qmpServer(t *testing.T, greeting string, answers ...string) (client net.Conn, requests func() []string) {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan []string, 1)
	go func() {
		defer server.Close()
		var lines []string
		fmt.Fprintln(server, greeting)
		in := bufio.NewScanner(server)
		for _, answer := range answers {
			if !in.Scan() {
				break
			}
			lines = append(lines, in.Text())
			fmt.Fprintln(server, answer)
		}
		done <- lines
	}()
	t.Cleanup(func() { client.Close() })
	return client, func() []string { return <-done }
}

func TestQMP(t *testing.T) {
	client, requests := qmpServer(t, greeting,
		`{"return": {}}`,
		`{"event": "STOP", "timestamp": {"seconds": 1}}`+"\n"+`{"return": {"running": false, "status": "paused"}}`,
		`{"error": {"class": "GenericError", "desc": "no room"}}`,
		`{"return": {}}`)
	q, err := NewQMP(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ Status string }
	if err := q.Run(t.Context(), "query-status", nil, &status); err != nil || status.Status != "paused" {
		t.Errorf("query-status: %q, %v", status.Status, err)
	}
	var refusal *QMPError
	err = q.Run(t.Context(), "dump-guest-memory", map[string]any{"protocol": "file:/x"}, nil)
	if !errors.As(err, &refusal) || refusal.Class != "GenericError" || err.Error() != "QMP dump-guest-memory: no room" {
		t.Errorf("a refusal: %v", err)
	}
	if err := q.Run(t.Context(), "cont", nil, nil); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	want := []string{
		`{"execute":"qmp_capabilities"}`,
		`{"execute":"query-status"}`,
		`{"execute":"dump-guest-memory","arguments":{"protocol":"file:/x"}}`,
		`{"execute":"cont"}`,
	}
	if got := requests(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("requests:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := q.Run(t.Context(), "cont", nil, nil); err == nil {
		t.Error("a command is answered after the peer is gone")
	}
}

func TestQMPOtherPeers(t *testing.T) {
	for _, tt := range []struct {
		name, greeting string
		answers        []string
		want           error
	}{
		{"JSON of another kind", `{"hello": "world"}`, nil, ErrNotQMP},
		{"no JSON", `SSH-2.0-OpenSSH`, nil, nil},
		{"refuses to negotiate", greeting, []string{`{"error": {"class": "CommandNotFound", "desc": "what?"}}`}, nil},
		{"hangs up", greeting, nil, nil},
	} {
		client, _ := qmpServer(t, tt.greeting, tt.answers...)
		_, err := NewQMP(t.Context(), client)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestQMPContext(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := NewQMP(ctx, client); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent peer: %v, want %v", err, context.DeadlineExceeded)
	}

	client, _ = qmpServer(t, greeting, `{"return": {}}`, `{"event": "STOP"}`, `{"return": {}}`)
	q, err := NewQMP(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := q.Run(ctx, "stop", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("unanswered command: %v, want %v", err, context.DeadlineExceeded)
	}
	// The answer to "stop" could still come: nothing may take it for its own.
	if err := q.Run(t.Context(), "cont", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("command on a broken connection: %v, want %v", err, context.DeadlineExceeded)
	}
}
