package verdict

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"inquest/inspect/packet"
	"inquest/nfqueue"
)

// newDaemon makes a daemon that has a worker but no queues.
func newDaemon(t *testing.T, rules string, log io.Writer) (*Daemon, *worker) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(file, Options{Log: NewLogger(log, file.Config.Log)})
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{d: d, engine: d.engine.Worker()}
	d.workers = append(d.workers, w)
	return d, w
}

// tcpPacket is a TCP segment without payload from 192.0.2.1 to 198.51.100.1.
func tcpPacket(sport, dport uint16, flags packet.Flags) []byte {
	b := make([]byte, 40)
	b[0], b[3], b[8], b[9] = 0x45, 40, 64, 6
	copy(b[12:], []byte{192, 0, 2, 1, 198, 51, 100, 1})
	b[20], b[21], b[22], b[23] = byte(sport>>8), byte(sport), byte(dport>>8), byte(dport)
	b[32], b[33] = 0x50, byte(flags)
	return b
}

func queued(data []byte) *nfqueue.Packet {
	return &nfqueue.Packet{Payload: data, Len: len(data), Hook: nfqueue.LocalIn, Received: nfqueue.Now(), Mark: 0x5}
}

func TestWorkerVerdicts(t *testing.T) {
	const rules = `
default: accept
daemon: {fail: closed}
rules:
  - {name: drop, when: tcp.dport == 1, verdict: drop}
  - {name: reset, when: tcp.dport == 2, verdict: reject}
  - {name: admin, when: tcp.dport == 3, verdict: reject-with icmp-admin-prohibited}
  - {name: once, when: tcp.dport == 4 && tcp.window >= 0, scope: packet, verdict: reject}
  - {name: mark, when: tcp.dport == 5, verdict: mark 0x10/0xff}
  - {name: queue, when: tcp.dport == 6, verdict: queue 9}
  - {name: wait, when: tcp.dport == 7 && tls.sni == "x", verdict: drop}
  - {name: packets, when: tcp.dport == 8 && tcp.window >= 0, scope: packet, verdict: accept}
`
	tests := []struct {
		port  uint16
		flags packet.Flags
		want  string
	}{
		{99, packet.SYN, "repeat mark 0x10000005"}, // accepted for good
		{1, packet.SYN, "drop"},                    // nothing to mark yet
		{1, packet.ACK, "repeat mark 0x20000005"},  // dropped for good
		{2, packet.SYN, "repeat mark 0xb0000005"},  // rejected, nothing to mark yet
		{2, packet.ACK, "repeat mark 0x30000005"},  // rejected for good
		{2, packet.RST, "accept"},                  // nobody answers that
		{3, packet.ACK, "repeat mark 0x70000005"},  // with another answer
		{4, packet.ACK, "repeat mark 0xb0000005"},  // this packet, not its flow
		{5, packet.ACK, "accept mark 0x10"},        // stays queued: each is to be marked
		{6, packet.ACK, "queue 9"},                 //
		{7, packet.SYN, "accept"},                  // not decided
		{8, packet.ACK, "accept"},                  // changes from packet to packet
	}
	var log bytes.Buffer
	_, w := newDaemon(t, rules, &log)
	for i, test := range tests {
		data := tcpPacket(1000+uint16(i), test.port, test.flags)
		if test.flags != packet.SYN {
			w.handle(queued(data)) // the flow's first packet
		}
		if got := w.handle(queued(data)); got.String() != test.want {
			t.Errorf("port %d, flags %v: %s, want %s", test.port, test.flags, got, test.want)
		}
	}

	// Without the shortcut no flow is marked; rejects still are answered.
	w.d.config.Shortcut = false
	for i, test := range []struct {
		port uint16
		want string
	}{{99, "accept"}, {1, "drop"}, {2, "repeat mark 0xb0000005"}} {
		if got := w.handle(queued(tcpPacket(2000+uint16(i), test.port, packet.ACK))); got.String() != test.want {
			t.Errorf("port %d without shortcut: %s, want %s", test.port, got, test.want)
		}
	}
	w.d.config.Shortcut = true

	// A packet that comes back with our mark does not go round for ever.
	for mark, want := range map[uint32]string{0x10000005: "accept mark 0x5", 0x20000005: "drop", 0xb0000005: "drop"} {
		p := queued(tcpPacket(3000, 2, packet.ACK))
		p.Mark = mark
		if got := w.handle(p); got.String() != want {
			t.Errorf("came back with mark %#x: %s, want %s", mark, got, want)
		}
	}
	if n := w.returned.Load(); n != 3 {
		t.Errorf("%d packets came back, want 3", n)
	}
	if n := strings.Count(log.String(), "packets come back"); n != 1 {
		t.Errorf("that was logged %d times, want once a minute", n)
	}
}

// A worker that panics is an event, not the end: daemon.fail decides on the packet.
func TestWorkerPanics(t *testing.T) {
	var log bytes.Buffer
	d, w := newDaemon(t, "default: drop\ndaemon: {fail: open}", &log)
	engine := w.engine
	w.engine = nil
	if v := w.handle(queued(tcpPacket(1, 2, packet.ACK))); v.Given() {
		t.Errorf("got %s, want nfqueue's default", v)
	}
	if d.Healthy() != nil {
		t.Error("not healthy after a panic that was contained")
	}
	w.engine = engine
	if v := w.handle(queued(tcpPacket(1, 2, packet.ACK))); !v.Given() {
		t.Error("no verdict after a panic")
	}
	if n := w.panics.Load(); n != 1 || !strings.Contains(log.String(), "a worker failed") {
		t.Errorf("%d panics; the log says %s", n, log.String())
	}
	w.since.Store(nfqueue.Now() - int64(stuckAfter) - 1)
	if err := d.Healthy(); err == nil || !strings.Contains(err.Error(), "queue 0") {
		t.Errorf("a worker that is stuck: %v", err)
	}
}

func TestReload(t *testing.T) {
	d, w := newDaemon(t, "default: accept\ndaemon: {fail: open}\n", io.Discard)
	w.handle(queued(tcpPacket(1, 2, packet.ACK)))
	judge := func() string {
		return w.handle(queued(tcpPacket(1, 2, packet.ACK))).String()
	}
	if got := judge(); got != "repeat mark 0x10000005" {
		t.Errorf("at first: %s", got)
	}
	steps := []struct {
		rules, want, err string
		reloads, fails   uint64
	}{
		{"default: drop\ndaemon: {fail: open}\n", "repeat mark 0x20000005", "", 1, 0},
		{"default: drop\ndaemon: {fail: open}\nrules: 3\n", "repeat mark 0x20000005", ":3:8: ", 1, 1},
		{"default: accept\ndaemon: {fail: open, length: 7}\n", "repeat mark 0x10000005", "", 2, 1},
		{"default: accept\ndaemon: {fail: maybe}\n", "repeat mark 0x10000005", ":2:16: ", 2, 2},
	}
	for _, step := range steps {
		if err := os.WriteFile(d.path, []byte(step.rules), 0o644); err != nil {
			t.Fatal(err)
		}
		err := d.Reload("test")
		if (err != nil) != (step.err != "") || err != nil && !strings.Contains(d.state.ReloadError, step.err) {
			t.Errorf("reload of %q: %v; status says %q", step.rules, err, d.state.ReloadError)
		}
		if got := judge(); got != step.want {
			t.Errorf("after %q: %s, want %s", step.rules, got, step.want)
		}
		if d.state.Reloads != step.reloads || d.state.ReloadFails != step.fails {
			t.Errorf("after %q: %d reloads, %d failed", step.rules, d.state.Reloads, d.state.ReloadFails)
		}
	}
	os.Remove(d.path)
	if err := d.Reload("test"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}

func TestRuleLog(t *testing.T) {
	var log bytes.Buffer
	d, w := newDaemon(t, "default: accept\ndaemon: {fail: open, log: {format: json, rate: 2}}\nrules:\n  - {name: web, when: tcp.dport == 80, verdict: drop, log: true}\n", &log)
	for i := range 5 {
		p := queued(tcpPacket(uint16(i+1), 80, packet.SYN))
		p.Received = int64(time.Second) + int64(i) // one second, whatever the clock says
		w.handle(p)
	}
	p := queued(tcpPacket(9, 80, packet.SYN))
	p.Received = int64(2 * time.Second)
	w.handle(p)
	close(d.entries.entries)
	d.entries.run()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d entries, want 3:\n%s", len(lines), log.String())
	}
	var last map[string]any
	if err := json.Unmarshal([]byte(lines[2]), &last); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"rule": "web", "verdict": "drop", "proto": "tcp", "hook": "input", "src": "192.0.2.1:9", "dst": "198.51.100.1:80", "suppressed": 3.0} {
		if last[key] != want {
			t.Errorf("%s is %v, want %v", key, last[key], want)
		}
	}
}

func TestMetrics(t *testing.T) {
	_, now := exampleStatuses()
	now.Packets.Queued, now.ReloadFails, now.LatencySum = 4, 1, 1500*time.Millisecond
	c := collector{func() *Status { return now }}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	var got strings.Builder
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			got.WriteString(f.GetName() + " " + m.String() + "\n")
		}
	}
	for _, want := range []string{
		`inquest_verdict_packets_total label:{name:"verdict" value:"reject"} counter:{value:501000}`,
		`inquest_verdict_queue_full_total label:{name:"queue" value:"1"} counter:{value:112}`,
		`inquest_verdict_carve_out gauge:{value:1}`,
		`sample_count:90123456 sample_sum:1.5`,
	} {
		if !strings.Contains(strings.ReplaceAll(got.String(), "  ", " "), want) {
			t.Errorf("no %s in\n%s", want, got.String())
		}
	}
	// The guide lists every metric.
	guide, err := os.ReadFile("../docs/verdict.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !bytes.Contains(guide, []byte(strings.TrimPrefix(f.GetName(), "inquest_verdict_"))) {
			t.Errorf("docs/verdict.md does not tell of %s", f.GetName())
		}
	}
}

func TestMetricsHandler(t *testing.T) {
	_, now := exampleStatuses()
	var sick atomic.Bool
	healthy := func() error {
		if sick.Load() {
			return errors.New("stuck")
		}
		return nil
	}
	for _, profiles := range []bool{false, true} {
		server := httptest.NewServer(metricsHandler(func() *Status { return now }, healthy, profiles))
		defer server.Close()
		get := func(path string) (int, string) {
			t.Helper()
			r, err := http.Get(server.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			body, _ := io.ReadAll(r.Body)
			return r.StatusCode, string(body)
		}
		if code, body := get("/metrics"); code != 200 || !strings.Contains(body, "inquest_verdict_flows 18500") || !strings.Contains(body, "go_goroutines") {
			t.Errorf("/metrics: %d\n%s", code, body)
		}
		sick.Store(false)
		if code, body := get("/healthz"); code != 200 || body != "ok\n" {
			t.Errorf("/healthz: %d %q", code, body)
		}
		sick.Store(true)
		if code, body := get("/healthz"); code != 503 || body != "stuck\n" {
			t.Errorf("/healthz of one that is not well: %d %q", code, body)
		}
		if code, _ := get("/debug/pprof/cmdline"); (code == 200) != profiles {
			t.Errorf("/debug/pprof with pprof %t: %d", profiles, code)
		}
	}
}

func TestStatusSocket(t *testing.T) {
	before, now := exampleStatuses()
	path := filepath.Join(t.TempDir(), "made", "verdict.sock")
	ctx := t.Context()
	if err := serveStatus(ctx, path, func() *Status { return now }); err != nil {
		t.Fatal(err)
	}
	got, err := ReadStatus(path)
	if err != nil {
		t.Fatal(err)
	}
	want, lines := (View{Width: 80, Height: 24}).Render(before, now), (View{Width: 80, Height: 24}).Render(before, got)
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("through the socket it is another status:\n%s", strings.Join(lines, "\n"))
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := serveStatus(ctx, path, nil); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("the socket of a daemon that lives: %v", err)
	}

	// What a daemon left that was killed is taken over; what is no socket is not.
	stale := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := serveStatus(ctx, stale, func() *Status { return now }); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := serveStatus(ctx, file, nil); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestWatchFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rules.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("rules.yaml", "1")
	changes := make(chan struct{}, 100)
	if err := watchFile(t.Context(), path, func() { changes <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	wait := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is not noticed", what)
		}
	}
	write("rules.yaml", "22")
	wait("a write")
	write("rules.yaml~", "333")
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
	wait("a rename")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write("rules.yaml", "4444")
	wait("a file that is made again")
	write("other", "x")
	time.Sleep(2 * settle)
	if len(changes) > 0 {
		t.Error("another file of the directory is taken for ours")
	}
}

func TestScreenFrame(t *testing.T) {
	before, now := exampleStatuses()
	s := Screen{}
	frame := s.frame(View{Width: 80, Height: 24}, before, now, nil, false)
	if n := strings.Count(frame, "\r\n"); n != 23 {
		t.Errorf("%d lines, want 24", n+1)
	}
	if !strings.HasPrefix(frame, goHome) || strings.Count(frame, clearLine) != 24 {
		t.Errorf("%q", frame)
	}
	for _, test := range []struct {
		trouble error
		paused  bool
		want    string
	}{{nil, false, "q quits"}, {nil, true, "PAUSED"}, {errors.New("gone\x1b[2J"), false, "NOT UP TO DATE: gone·[2J"}} {
		if frame := s.frame(View{Width: 80, Height: 3}, before, now, test.trouble, test.paused); !strings.Contains(frame, test.want) {
			t.Errorf("no %q in %q", test.want, frame)
		}
	}
	for _, size := range []View{{Width: 1, Height: 1}, {Width: 200, Height: 1}, {Width: 1, Height: 50}} {
		s.frame(size, before, now, nil, false)
	}
}

func TestExpectations(t *testing.T) {
	e, err := ParseExpectations([]byte("rules:\n  a: {packets: 3, flows: '>0'}\n  b: {packets: '<=2'}\n  c: {}\nframes:\n  7: {rule: a, verdict: drop}\n  8: {verdict: pending}\n"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"a", "b", "default"}
	rules := map[string]RuleStatus{"a": {Packets: 3, Flows: 1}, "b": {Packets: 2}}
	frames := map[int]ExpectedFrame{7: {"a", "drop"}, 8: {"b", "pending"}}
	if got := e.Unmet(append(names, "c"), rules, frames); len(got) > 0 {
		t.Errorf("unmet: %q", got)
	}
	rules["a"], rules["b"] = RuleStatus{Packets: 4}, RuleStatus{Packets: 3}
	frames = map[int]ExpectedFrame{7: {"b", "accept"}}
	want := []string{
		"rule a: 4 packets, expected 3", "rule a: 0 flows, expected >0", "rule b: 3 packets, expected <=2", "rule c: there is no such rule",
		"frame 7: rule b, expected a", "frame 7: accept, expected drop", "frame 8: no packet of that number was judged",
	}
	if got := e.Unmet(names, rules, frames); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"rules: {a: {packets: many}}", "rules: {a: {pakets: 3}}", "frames: [1]"} {
		if _, err := ParseExpectations([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestNewLogger(t *testing.T) {
	var b bytes.Buffer
	NewLogger(&b, Log{JSON: true, Level: slog.LevelWarn}).Warn("x")
	NewLogger(&b, Log{JSON: true, Level: slog.LevelWarn}).Info("y")
	if !json.Valid(b.Bytes()) || strings.Contains(b.String(), "y") {
		t.Errorf("%s", b.String())
	}
}

// The guide shows what the view draws.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../docs/verdict.md")
	if err != nil {
		t.Fatal(err)
	}
	before, now := exampleStatuses()
	var screen strings.Builder
	for _, line := range (View{Width: 80, Height: 24}).Render(before, now) {
		if line != "" {
			line = "    " + line
		}
		screen.WriteString(line + "\n")
	}
	if !strings.Contains(string(guide), screen.String()) {
		t.Errorf("docs/verdict.md does not show this:\n%s", screen.String())
	}
	for key := range keys {
		if !strings.Contains(string(guide), "| `"+key+"` |") {
			t.Errorf("docs/verdict.md does not tell of daemon.%s", key)
		}
	}
}

// BenchmarkWorker judges a packet of a flow that is known, from what nfqueue hands over
// to the verdict that it takes.
func BenchmarkWorker(b *testing.B) {
	for name, rules := range map[string]string{
		"decided": "default: accept\ndaemon: {fail: open, shortcut: false}",
		"judged":  "default: accept\ndaemon: {fail: open}\nrules:\n  - {name: a, when: tcp.dport == 8 && tcp.window >= 0, scope: packet, verdict: accept}\n",
	} {
		b.Run(name, func(b *testing.B) {
			file, err := Parse("rules.yaml", []byte(rules))
			if err != nil {
				b.Fatal(err)
			}
			d, err := New(file, Options{})
			if err != nil {
				b.Fatal(err)
			}
			w := &worker{d: d, engine: d.engine.Worker()}
			p := queued(tcpPacket(1, 8, packet.ACK))
			b.ReportAllocs()
			for b.Loop() {
				w.handle(p)
			}
		})
	}
}

func TestWorkerAllocatesNothing(t *testing.T) {
	_, w := newDaemon(t, "default: accept\ndaemon: {fail: open}\nrules:\n  - {name: a, when: tcp.dport == 8 && tcp.window >= 0, scope: packet, verdict: accept}\n", io.Discard)
	p := queued(tcpPacket(1, 8, packet.ACK))
	w.handle(p)
	if n := testing.AllocsPerRun(1000, func() { w.handle(p) }); n > 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
