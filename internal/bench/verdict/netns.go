package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// netns is a network namespace without a name: it ends with the thread that made it
// and the processes in it, and those are killed when the thread ends.
type netns struct {
	tid   int
	calls chan func()
}

func newNetns() (*netns, error) {
	n := &netns{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: what the thread is, is not undone
		n.tid = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range n.calls {
			f()
		}
	}()
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return n, nil
}

// do runs f on a thread in the namespace. What f starts or opens belongs there.
func (n *netns) do(f func() error) error {
	done := make(chan error)
	n.calls <- func() { done <- f() }
	return <-done
}

// goOn runs f on a thread of its own in the namespace, pinned to a core.
func (n *netns) goOn(cpu int, f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, as above
		fd, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", n.tid))
		if err == nil {
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
			fd.Close()
		}
		if err == nil {
			err = pin(cpu)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return done
}

// start starts a command in the namespace, pinned to a core, which is killed at the
// latest when this process ends.
func (n *netns) start(cmd *exec.Cmd, cpu int) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return n.do(func() error {
		if err := pin(cpu); err != nil {
			return err
		}
		defer unpin()
		return cmd.Start()
	})
}

// run runs a command line in the namespace.
func (n *netns) run(line string) error {
	args := strings.Fields(line)
	cmd := exec.Command(args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.do(cmd.Run); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// read reads a file below /proc/net as the namespace has it.
func (n *netns) read(name string) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/net/%s", n.tid, name))
	return string(b), err
}

// udpArrived returns how many datagrams reached the namespace's UDP sockets: those
// read, and those dropped there because nobody did.
func (n *netns) udpArrived() (uint64, error) {
	snmp, err := n.read("snmp")
	if err != nil {
		return 0, err
	}
	return parseArrived(snmp)
}

func parseArrived(snmp string) (uint64, error) {
	var names, values []string
	for line := range strings.Lines(snmp) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "Udp:" {
			names, values = values, f
		}
	}
	if len(names) == 0 || len(names) != len(values) {
		return 0, errors.New("/proc/net/snmp: no line of UDP")
	}
	var sum uint64
	for i, name := range names {
		if name == "InDatagrams" || name == "RcvbufErrors" || name == "NoPorts" {
			v, err := strconv.ParseUint(values[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/net/snmp: %w", err)
			}
			sum += v
		}
	}
	return sum, nil
}

// queueStat is a line of /proc/net/netfilter/nfnetlink_queue: what is in a queue,
// and what was lost at its end or at its reader's socket.
type queueStat struct {
	bound             bool
	total             uint64
	full, user, given uint64
}

func (n *netns) queueStat(queue int) (queueStat, error) {
	text, err := n.read("netfilter/nfnetlink_queue")
	if err != nil {
		return queueStat{}, err
	}
	return parseQueueStat(text, queue)
}

func parseQueueStat(text string, queue int) (queueStat, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] != strconv.Itoa(queue) {
			continue
		}
		var v [8]uint64
		for i := range v {
			n, err := strconv.ParseUint(f[i], 10, 64)
			if err != nil {
				return queueStat{}, fmt.Errorf("nfnetlink_queue: %w", err)
			}
			v[i] = n
		}
		// A queue is ready when something is copied from it (mode 1 or 2).
		return queueStat{bound: v[3] != 0, total: v[2], full: v[5], user: v[6], given: v[7]}, nil
	}
	return queueStat{}, nil
}

const sendAddr, recvAddr = "10.99.0.1", "10.99.0.2"

// connect makes the namespaces and joins them. Segmentation is the sender's device's
// work, so each datagram comes to the queue by itself, whatever the sender's system
// call held. Neighbours are fixed: there is no ARP to be lost.
func (s *setup) connect() (err error) {
	if s.send, err = newNetns(); err != nil {
		return err
	}
	if s.recv, err = newNetns(); err != nil {
		return err
	}
	const sendMAC, recvMAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
	lines := []string{
		fmt.Sprintf("ip link add s0 address %s type veth peer name r0 address %s netns %d", sendMAC, recvMAC, s.recv.tid),
		"ip address add " + sendAddr + "/24 dev s0",
		"ip link set lo up", "ip link set s0 up",
		"ip neigh replace " + recvAddr + " lladdr " + recvMAC + " dev s0 nud permanent",
		"ethtool -K s0 tx-udp-segmentation off",
	}
	for _, line := range lines {
		if err := s.send.run(line); err != nil {
			return err
		}
	}
	lines = []string{
		"ip address add " + recvAddr + "/24 dev r0",
		"ip link set lo up", "ip link set r0 up",
		"ip neigh replace " + sendAddr + " lladdr " + sendMAC + " dev r0 nud permanent",
	}
	if s.gro {
		lines = append(lines, "ethtool -K r0 gro on rx-udp-gro-forwarding on")
	}
	for _, line := range lines {
		if err := s.recv.run(line); err != nil {
			return err
		}
	}
	return nil
}

// reader is the namespace that the queue is in.
func (s *setup) reader() *netns {
	if s.hook == "output" {
		return s.send
	}
	return s.recv
}

// rule adds (-A) or deletes (-D) the rule that queues datagrams.
func (s *setup) rule(op string) error {
	return s.reader().run(fmt.Sprintf("iptables-legacy -w -t mangle %s %s -p udp -j NFQUEUE --queue-num %d", op, strings.ToUpper(s.hook), s.queue))
}

// pin pins the calling thread, and what it starts, to a core, before ordinary
// processes there: the measure is not of what else the machine does.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to core %d: %w", cpu, err)
	}
	return unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
}

func unpin() {
	var set unix.CPUSet
	for i := range runtime.NumCPU() {
		set.Set(i)
	}
	unix.SchedSetaffinity(0, &set)
	unix.Setpriority(unix.PRIO_PROCESS, 0, 0)
}
