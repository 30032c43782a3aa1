package verdict

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"inquest/inspect"
	"inquest/inspect/rule"
	"inquest/nfqueue"
)

// Options are what a daemon is told besides its rule file.
type Options struct {
	NoInstall bool         // the kernel's rules are somebody else's
	Log       *slog.Logger // nil for one to standard error, as the file says
}

// Daemon judges packets. [Daemon.Run] may be called once.
type Daemon struct {
	config  *Config
	options Options
	path    string
	log     *slog.Logger
	entries *logger
	engine  *inspect.Engine
	devices devices
	ruleset *Ruleset

	conntrack bool // packets come with their conntrack entries

	rules   atomic.Pointer[ruleTable]
	reload  sync.Mutex
	text    []byte // of the rule file that is in force; guarded by reload
	started time.Time

	workers []*worker
	queues  *nfqueue.Queues

	panics, returns, events limiter // of log entries

	mu    sync.Mutex
	state Status // what does not come from elsewhere; guarded by mu
}

// ruleTable is what the daemon keeps of the rules that are in force; the last one is
// the default.
type ruleTable struct {
	names    []string
	verdicts []string
	logs     []rule.Log
	limits   []limiter
	flows    []atomic.Uint64 // decided for good
}

// defaultName is how the default is called among the rules.
const defaultName = "default"

func newRuleTable(set *rule.Set) *ruleTable {
	t := &ruleTable{}
	for _, r := range set.Rules() {
		t.names, t.verdicts, t.logs = append(t.names, r.Name), append(t.verdicts, r.Verdict.String()), append(t.logs, r.Log)
	}
	t.names, t.verdicts, t.logs = append(t.names, defaultName), append(t.verdicts, set.Default().String()), append(t.logs, rule.Log{})
	t.limits = make([]limiter, len(t.names))
	t.flows = make([]atomic.Uint64, len(t.names))
	return t
}

// index is the place of a rule by the index that a decision has. A packet that is judged
// while rules are reloaded may have the index of a rule that is no more.
func (t *ruleTable) index(i int) int {
	if i < 0 || i >= len(t.names) {
		return len(t.names) - 1
	}
	return i
}

func (t *ruleTable) decided(i int) { t.flows[t.index(i)].Add(1) }

// New makes a daemon of a rule file.
func New(file *File, options Options) (*Daemon, error) {
	d := &Daemon{config: file.Config, options: options, path: file.Path, text: file.Text, log: options.Log, started: time.Now()}
	if d.log == nil {
		d.log = NewLogger(os.Stderr, d.config.Log)
	}
	d.entries = newLogger(d.log)
	d.engine = inspect.New(file.Rules, inspect.Config{MaxFlows: d.config.Flows.Max, MaxMemory: d.config.Flows.Memory})
	d.rules.Store(newRuleTable(file.Rules))
	d.state = Status{Started: d.started, PID: os.Getpid(), File: file.Path, Loaded: d.started, Fail: d.config.Fail.String()}
	return d, nil
}

// stuckAfter is for how long a worker may be at one packet before the daemon is not
// well: systemd's watchdog then starts another.
const stuckAfter = 5 * time.Second

// grace is how long packets that wait are judged after the daemon was told to end.
const grace = 2 * time.Second

// Run binds the queues, installs the kernel's rules and judges packets until the context
// ends; then it takes all of that back, and no packet that waits is lost. SIGHUP and a
// change of the file reload the rules.
func (d *Daemon) Run(ctx context.Context) error {
	// What serves others than packets ends last.
	rest, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	var logged sync.WaitGroup
	logged.Go(d.entries.run)
	defer logged.Wait()
	defer close(d.entries.entries)

	if err := d.bind(); err != nil {
		return err
	}
	defer d.queues.Close()
	if err := d.attend(rest); err != nil {
		return err
	}
	judging, stopJudging := context.WithCancel(context.WithoutCancel(ctx))
	defer stopJudging()
	judged := make(chan error, 1)
	go func() {
		judged <- d.queues.ServeEach(judging, func(queue uint16) nfqueue.Handler {
			return d.workers[queue-d.config.Queues.First].handle
		})
	}()
	// Queues come first, rules second: no packet is queued where nobody listens.
	if err := d.install(rest); err != nil {
		stopJudging()
		return errors.Join(err, <-judged)
	}
	d.log.Info("judging packets", "file", d.path, "rules", len(d.rules.Load().names)-1, "queues", d.config.Queues.String(), "fail", d.config.Fail.String())
	notifyReady("judging packets of queues " + d.config.Queues.String())
	go watchdog(rest, d.Healthy)

	var err error
	select {
	case <-ctx.Done():
		notifyStopping()
		d.log.Info("ending", "reason", cmp.Or(context.Cause(ctx), ctx.Err()).Error())
		err = d.end(stopJudging, judged)
	case err = <-judged:
		err = errors.Join(fmt.Errorf("the queues ended: %w", err), d.uninstall())
	}
	return err
}

// bind opens the queues.
func (d *Daemon) bind() error {
	c := d.config
	d.conntrack = usesConnmark(d.engine.Set())
	config := nfqueue.Config{
		First: c.Queues.First, Count: c.Queues.Count, CopyRange: c.Copy, MaxLen: c.Length,
		FailOpen: c.Fail == FailOpen, GSO: c.GSO, UIDGID: true, Conntrack: d.conntrack, Default: nfqueue.Drop(), Grace: grace,
		CPUs: c.Pin, MaxDelay: c.MaxDelay, ReadBuffer: c.ReadBuffer, Event: d.event,
	}
	if c.Fail == FailOpen {
		config.Default = nfqueue.Accept()
	}
	queues, err := nfqueue.Open(config)
	if err != nil {
		return fmt.Errorf("bind queues %s: %w", c.Queues, err)
	}
	d.queues = queues
	for range c.Queues.Count {
		d.workers = append(d.workers, &worker{d: d, engine: d.engine.Worker()})
	}
	return nil
}

// usesConnmark reports whether a rule looks at the mark of conntrack entries, which costs
// something for every packet, and which not every kernel tells.
func usesConnmark(set *rule.Set) bool {
	return slices.ContainsFunc(set.Rules(), func(r rule.Rule) bool { return strings.Contains(r.When, "meta.connmark") })
}

// attend starts all that is not on the way of packets.
func (d *Daemon) attend(ctx context.Context) error {
	c := d.config
	if err := d.devices.watch(ctx); err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	if c.Socket != "" {
		if err := serveStatus(ctx, c.Socket, d.Status); err != nil {
			return err
		}
	}
	if c.Metrics != "" {
		addr, err := serveMetrics(ctx, c.Metrics, metricsHandler(d.Status, d.Healthy, c.PProf),
			func(err error) { d.log.Error("metrics", "error", err) })
		if err != nil {
			return err
		}
		d.log.Info("serving metrics", "address", addr.String())
	}
	if err := watchFile(ctx, d.path, func() { d.Reload("the file changed") }); err != nil {
		d.log.Warn("changes of the rule file are not noticed; SIGHUP still reloads it", "error", err)
	}
	go func() {
		second := time.NewTicker(time.Second)
		defer second.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-second.C:
				d.engine.Expire(nfqueue.Now())
			}
		}
	}()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				d.Reload("SIGHUP")
			}
		}
	}()
	return nil
}

// install writes the kernel's rules and keeps them there.
func (d *Daemon) install(ctx context.Context) error {
	carveOut, why := d.config.CarveOutNow()
	d.ruleset = NewRuleset(d.config, carveOut)
	if d.options.NoInstall {
		d.log.Info("the kernel's rules are somebody else's", "see", "inquest verdict rules")
		return nil
	}
	way, err := d.ruleset.Install()
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.state.Installed, d.state.CarveOut, d.state.CarveOutWhy = way, carveOut, why
	d.mu.Unlock()
	d.log.Info("installed the kernel's rules", "table", d.config.Table, "by", string(way), "carve_out", carveOut, "because", why)
	changes, err := watchTables(ctx)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	go func() {
		for range changes {
			d.reinstall()
		}
	}()
	return nil
}

// reinstall puts the table back when somebody has flushed the whole ruleset.
func (d *Daemon) reinstall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.Installed == "" {
		return // the daemon ends
	}
	there, err := d.ruleset.Installed()
	if there || err != nil {
		return
	}
	if _, err := d.ruleset.Install(); err != nil {
		d.log.Error("the kernel's rules are gone and cannot be installed again", "error", err)
		return
	}
	d.state.Reinstalled++
	d.log.Warn("somebody removed the kernel's rules; they are installed again", "table", d.config.Table)
}

// end stops queueing, has what waits judged, and removes the table.
func (d *Daemon) end(stopJudging func(), judged <-chan error) error {
	var err error
	d.mu.Lock()
	installed := d.state.Installed
	d.state.Installed = ""
	d.mu.Unlock()
	if installed != "" && !d.config.Keep {
		err = d.ruleset.StopQueueing()
	}
	stopJudging()
	err = errors.Join(err, <-judged)
	if installed != "" && !d.config.Keep {
		err = errors.Join(err, d.ruleset.Remove())
	}
	return err
}

func (d *Daemon) uninstall() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.Installed == "" || d.config.Keep {
		return nil
	}
	d.state.Installed = ""
	return d.ruleset.Remove()
}

// Reload reads the rule file again and puts its rules in force, all of them or, if
// anything is wrong, none. No packet waits for it, and none is lost.
func (d *Daemon) Reload(reason string) error {
	d.reload.Lock()
	defer d.reload.Unlock()
	notifyReloading()
	err := d.load(reason)
	d.mu.Lock()
	if d.state.ReloadError = ""; err != nil {
		d.state.ReloadFails++
		d.state.ReloadError = firstProblem(err)
	}
	d.mu.Unlock()
	if err != nil {
		d.log.Error("the rules stay as they were", "reason", reason, "error", err)
		notifyReady("the rule file was refused: " + firstProblem(err))
		return err
	}
	notifyReady("judging packets of queues " + d.config.Queues.String())
	return nil
}

func (d *Daemon) load(reason string) error {
	text, err := readFile(d.path)
	if err != nil {
		return err
	}
	if bytes.Equal(text, d.text) {
		d.log.Debug("the rule file has not changed", "reason", reason)
		return nil
	}
	file, err := Parse(d.path, text)
	if err != nil {
		return err
	}
	table := newRuleTable(file.Rules)
	d.engine.Reload(file.Rules)
	d.rules.Store(table)
	d.text = text
	d.mu.Lock()
	d.state.Reloads++
	d.state.Loaded = time.Now()
	d.mu.Unlock()
	d.log.Info("reloaded", "reason", reason, "rules", len(table.names)-1)
	if !d.conntrack && usesConnmark(file.Rules) {
		d.log.Warn("meta.connmark is 0 for the new rules, no rule looked at it before; that takes a restart")
	}
	if !reflect.DeepEqual(file.Config, d.config) {
		d.log.Warn("the section daemon has changed; that takes a restart")
	}
	return nil
}

// firstProblem is an error on one line.
func firstProblem(err error) string {
	var e *rule.Error
	if !errors.As(err, &e) || len(e.Problems) == 0 {
		return err.Error()
	}
	p := e.Problems[0]
	s := fmt.Sprintf("%s:%d:%d: %s", e.File, p.Line, p.Column, p.Message)
	if n := len(e.Problems) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

// Healthy says what is wrong with the daemon, nil if nothing is.
func (d *Daemon) Healthy() error {
	now := nfqueue.Now()
	for i, w := range d.workers {
		if t := w.stuck(now); t > stuckAfter {
			return fmt.Errorf("the worker of queue %d has been at one packet for %v", int(d.config.Queues.First)+i, t.Round(time.Second))
		}
	}
	return nil
}

// Status counts everything.
func (d *Daemon) Status() *Status {
	d.mu.Lock()
	s := d.state
	d.mu.Unlock()
	s.Time = time.Now()
	table, e := d.rules.Load(), d.engine.Stats()
	s.Packets = Packets{
		Received: e.Packets, Bytes: e.Bytes,
		Accepted: e.Verdicts[rule.Accept] + e.Verdicts[rule.Mark], Dropped: e.Verdicts[rule.Drop],
		Rejected: e.Verdicts[rule.Reject], Queued: e.Verdicts[rule.Queue],
		Pending: e.Pending, Malformed: e.NotIP, Anomalous: e.Anomalous,
	}
	s.Flows = FlowStatus{
		Now: e.Flows.Flows, Max: d.config.Flows.Max, Created: e.Flows.Created, Decided: e.Decided, Taken: e.Taken,
		Memory: e.Flows.Memory + e.StreamMemory + e.ParserMemory + e.SessionMemory,
	}
	for _, n := range e.Flows.Evicted {
		s.Flows.Evicted += n
	}
	for _, w := range d.workers {
		s.Packets.Returned += w.returned.Load()
		s.Packets.Panics += w.panics.Load()
		s.Flows.Left += w.left.Load()
	}
	// While rules are reloaded the engine's may be others than ours for a moment.
	if hits := append(e.Rules, e.Default); len(hits) == len(table.names) {
		for i, n := range hits {
			s.Rules = append(s.Rules, RuleStatus{table.names[i], table.verdicts[i], n, table.flows[i].Load()})
		}
	}
	d.queueStatus(&s)
	return &s
}

// event logs what went wrong in a queue.
func (d *Daemon) event(e nfqueue.Event) {
	if suppressed, ok := d.events.allow(nfqueue.Now(), 5); ok {
		d.log.Warn("trouble with a queue", "queue", e.Queue, "error", e.Err, "packets", e.Packets, "suppressed", suppressed)
	}
}

func (d *Daemon) queueStatus(s *Status) {
	var latency nfqueue.Latency
	for _, q := range d.queues.Stats() {
		status := QueueStatus{
			Number: q.Queue, Received: q.Received, Lost: q.Lost, Overruns: q.Overruns,
			Flushed: q.Flushed, Refused: q.Refused, Vanished: q.Vanished,
		}
		if q.Kernel != nil {
			status.Waiting, status.Full = q.Kernel.Waiting, q.Kernel.Dropped
		}
		s.Queues = append(s.Queues, status)
		latency.Add(&q.Latency)
	}
	slices.SortFunc(s.Queues, func(a, b QueueStatus) int { return cmp.Compare(a.Number, b.Number) })
	s.LatencySum = latency.Sum
	before := uint64(0)
	for limit, n := range latency.Buckets() {
		if n > before {
			s.Latency = append(s.Latency, LatencyCount{limit, n - before})
		}
		before = n
	}
}
