package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed c
var sources embed.FS

// contestant is a program that reads the queue and accepts what it gets.
type contestant struct {
	name    string
	doc     string
	build   func() (command []string, err error)
	command []string // {queue}, {length} and {config} are replaced; nil: there is no queue
	config  bool     // has a rule file, which knows how flows leave the queue
	absent  error    // why it cannot run here
	endures bool     // is what endure is about
}

// rivals says where other people's programs are; they are no part of this module.
type rivals struct {
	suricata, goNFQueue string
	more                []*contestant
}

func (r *rivals) add(text string) error {
	name, command, ok := strings.Cut(text, "=")
	if !ok || command == "" {
		return errors.New("want name=command")
	}
	r.more = append(r.more, &contestant{name: name, doc: command, command: []string{"/bin/sh", "-c", "exec " + command}})
	return nil
}

// contestants returns those of the given names, or all, built and ready or with the
// reason why not.
func contestants(ctx context.Context, s *setup, r *rivals, only []string) []*contestant {
	c := func(name string, args ...string) func() ([]string, error) {
		return func() ([]string, error) {
			path, err := buildC(ctx, s.dir, name, "-lnetfilter_queue")
			return append([]string{path, "{queue}"}, args...), err
		}
	}
	ours := func(args ...string) func() ([]string, error) {
		return func() ([]string, error) {
			self, err := os.Executable()
			return append([]string{self, "reader", "-queue", "{queue}", "-length", "{length}"}, args...), err
		}
	}
	all := []*contestant{
		{name: "none", doc: "no queue: the kernel alone"},
		{name: "floor", doc: "C, recvmmsg and a batch verdict, looks at nothing", build: c("floor", "64", "{length}")},
		{name: "lnfq", doc: "C, libnetfilter_queue, a verdict each", build: c("lnfq", "1", "{length}")},
		{name: "lnfq-32", doc: "C, libnetfilter_queue, batches of 32", build: c("lnfq", "32", "{length}")},
		{name: "go-nfqueue", doc: "github.com/florianl/go-nfqueue", build: func() ([]string, error) {
			path, err := buildGoNFQueue(ctx, s.dir, r.goNFQueue)
			return []string{path, "{queue}", "{length}"}, err
		}},
		{name: "suricata", doc: "NFQ mode, workers, batchcount 20, no rules", build: func() ([]string, error) {
			return findSuricata(r.suricata)
		}},
		{name: "nfqueue", doc: "Inquest's package nfqueue, accepts everything", build: ours()},
		{name: "inspect", doc: "and package inspect: flows, 100 rules", build: ours("-rules", "flow")},
		{name: "inspect-each", doc: "the same, 5 of the rules look at each packet", endures: true, build: ours("-rules", "packet")},
	}
	all = append(all, &contestant{name: "verdict", doc: "inquest verdict run, the same 100 rules", endures: true, config: true,
		build: func() ([]string, error) {
			path, err := buildInquest(ctx, s.dir)
			return []string{path, "verdict", "run", "--no-install", "--config", "{config}"}, err
		}})
	all = append(all, r.more...)
	if len(only) > 0 {
		all = slices.DeleteFunc(all, func(c *contestant) bool { return !slices.Contains(only, c.name) })
	}
	for _, c := range all {
		if c.build != nil {
			c.command, c.absent = c.build()
		}
	}
	return all
}

func buildC(ctx context.Context, dir, name string, libs ...string) (string, error) {
	src, err := sources.ReadFile("c/" + name + ".c")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".c", src, 0o600); err != nil {
		return "", err
	}
	args := append([]string{"-O2", "-o", path, path + ".c"}, libs...)
	if out, err := exec.CommandContext(ctx, "gcc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcc: %w: %.200s", err, out)
	}
	return path, nil
}

// buildGoNFQueue builds a reader on a checkout of go-nfqueue, in a module of its own.
func buildGoNFQueue(ctx context.Context, dir, checkout string) (string, error) {
	if checkout == "" {
		return "", errors.New("no checkout given (-go-nfqueue)")
	}
	checkout, err := filepath.Abs(checkout)
	if err != nil {
		return "", err
	}
	src, err := sources.ReadFile("c/gonfq.go.txt")
	if err != nil {
		return "", err
	}
	mod := filepath.Join(dir, "gonfq-module")
	if err := os.Mkdir(mod, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(mod, "main.go"), src, 0o600); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gonfq")
	const module = "github.com/florianl/go-nfqueue/v2"
	for _, args := range [][]string{
		{"mod", "init", "gonfq"},
		{"mod", "edit", "-require=" + module + "@v2.0.0", "-replace=" + module + "=" + checkout},
		{"mod", "tidy"},
		{"build", "-o", path, "."},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = mod
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w: %.200s", args[0], err, out)
		}
	}
	return path, nil
}

func buildInquest(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "inquest")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "inquest/cmd/inquest").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %.200s", err, out)
	}
	return path, nil
}

func (s *setup) configPath() string { return filepath.Join(s.dir, "rules.yaml") }

// writeConfig writes the daemon's rule file. Only bulk has the kernel's rules for what
// a daemon says of decided flows; without them they would come to the queue again.
func (s *setup) writeConfig() error {
	text := fmt.Sprintf("daemon: {queues: %d, fail: closed, hooks: [input, output], length: %d, shortcut: %t, socket: %q}\n%s",
		s.queue, s.length, s.shortcut, filepath.Join(s.dir, "verdict.sock"), hundredRules(false))
	return os.WriteFile(s.configPath(), []byte(text), 0o600)
}

func findSuricata(root string) ([]string, error) {
	if root == "" {
		root = "/"
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/suricata")); err != nil {
		return nil, errors.New("not found (-suricata)")
	}
	command := []string{"/usr/bin/suricata", "-c", "/etc/suricata/suricata.yaml", "-S", "/dev/null", "-l", "/tmp",
		"--runmode", "workers", "--set", "nfq.batchcount=20", "--set", "nfq.fail-open=no", "--set", "pid-file=/dev/null", "-q", "{queue}"}
	if root != "/" {
		command = append([]string{"chroot", root}, command...)
	}
	return command, nil
}

// running is a contestant at work.
type running struct {
	*contestant
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{}
}

// start starts a contestant and waits until it is bound to its queue.
func (c *contestant) start(ctx context.Context, s *setup) (*running, error) {
	r := &running{contestant: c, done: make(chan struct{})}
	if err := s.writeConfig(); err != nil {
		return nil, err
	}
	args := make([]string, len(c.command))
	for i, a := range c.command {
		args[i] = strings.NewReplacer("{queue}", strconv.Itoa(s.queue), "{length}", strconv.Itoa(s.length), "{config}", s.configPath()).Replace(a)
	}
	r.cmd = exec.Command(args[0], args[1:]...)
	r.cmd.Stderr = &r.stderr
	if err := s.reader().start(r.cmd, s.readCPU); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	go func() {
		r.cmd.Wait()
		close(r.done)
	}()
	deadline := time.Now().Add(30 * time.Second)
	for {
		stat, err := s.reader().queueStat(s.queue)
		if err == nil && stat.bound {
			return r, nil
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-r.done:
			err = fmt.Errorf("ended before it was bound to the queue: %s", bytes.TrimSpace(r.stderr.Bytes()))
		case <-time.After(10 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
			err = errors.New("not bound to the queue after 30 s")
		}
		r.stop()
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
}

// alive returns an error when the contestant has ended.
func (r *running) alive() error {
	select {
	case <-r.done:
		return fmt.Errorf("%s: ended: %.300s", r.name, bytes.TrimSpace(r.stderr.Bytes()))
	default:
		return nil
	}
}

// stop ends the contestant, by force if it does not within some seconds.
func (r *running) stop() {
	syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(5 * time.Second):
		syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-r.done
	}
}

// usage returns the processor time used so far by all threads, what the kernel did
// on their behalf included, and resident memory in KiB.
func (r *running) usage() (cpu time.Duration, rss int) {
	dir := fmt.Sprintf("/proc/%d", r.cmd.Process.Pid)
	threads, _ := filepath.Glob(dir + "/task/*/schedstat")
	for _, path := range threads {
		text, _ := os.ReadFile(path)
		ns, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(ns, 10, 64)
		cpu += time.Duration(n)
	}
	if statm, err := os.ReadFile(dir + "/statm"); err == nil {
		if f := strings.Fields(string(statm)); len(f) > 1 {
			pages, _ := strconv.Atoi(f[1])
			rss = pages * os.Getpagesize() / 1024
		}
	}
	return cpu, rss
}
