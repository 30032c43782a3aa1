package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A program that is interrupted takes with it what it started.
func TestInterruptedTool(t *testing.T) {
	file := filepath.Join(t.TempDir(), "child")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if text, err := os.ReadFile(file); err == nil && strings.HasSuffix(string(text), "\n") {
				cancel()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	_, err := runTool(ctx, "", nil, "sh", "-c", `sleep 600 & echo $! >"$1"; wait`, "sh", file)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		// A zombie that nobody reaped yet has no memory any more.
		status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
		if err != nil || strings.HasPrefix(string(status), "0 ") {
			break
		}
		if time.Since(start) > 10*time.Second {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the child is still there")
		}
	}
}

func TestToolComplains(t *testing.T) {
	_, err := runTool(t.Context(), "", nil, "sh", "-c", "echo no such mirror >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit status 3: no such mirror") {
		t.Errorf("error %v", err)
	}
}
