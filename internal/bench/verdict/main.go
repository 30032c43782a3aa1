// Verdict measures readers of a packet queue side by side: the kernel without a
// queue, the cheapest reader imaginable, C's libnetfilter_queue, whatever rivals the
// machine has, and Inquest. `make bench-verdict` calls it, as root;
// docs/performance.md says how to read it.
//
//	go run ./internal/bench/verdict [-measure accept,bulk,gaps,latency,endure] [-only nfqueue,floor]
//	       [-suricata DIR] [-go-nfqueue DIR] [-contestant 'name=command {queue} {length}']
//
// It makes two network namespaces joined by a veth pair, the sender's and the
// receiver's. The sender is pinned to one core, and so is all that the kernel does with
// its packets up to the queue; the contestant is pinned to another, and so is all that
// the kernel does after the verdict. Nothing has a name, so nothing is left behind, however it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setup is what all measures share.
type setup struct {
	dir        string // scratch, removed at the end
	queue      int
	length     int // of the queue, in packets
	size       int // of a datagram's payload
	flows      int
	gro        bool
	shortcut   bool // decided flows leave the queue
	hooks      []string
	hook       string // of the queue: output (of the sender) or input (of the receiver)
	burst      int    // datagrams a system call of the sender
	rounds     int
	warm, time time.Duration
	sendCPU    int
	readCPU    int
	endure     time.Duration
	loads      string // only those of endure that have this in their name

	send, recv *netns
}

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 && os.Args[1] == "reader" {
		if err := reader(os.Args[2:]); err != nil {
			log.Fatal(err)
		}
		return
	}
	var s setup
	measures := flag.String("measure", "accept,bulk,gaps,latency,endure", "what to measure, separated by commas")
	only := flag.String("only", "", "contestants to run, separated by commas; all that are there by default")
	flag.IntVar(&s.rounds, "rounds", 4, "rounds; each runs every contestant once")
	flag.DurationVar(&s.time, "time", 1200*time.Millisecond, "measured time of one run")
	flag.DurationVar(&s.warm, "warm", 300*time.Millisecond, "traffic before the measured time")
	flag.StringVar(&s.loads, "loads", "", "endure's loads with this in their name: flows, flood, malformed")
	flag.DurationVar(&s.endure, "endure", 10*time.Second, "time of each of endure's loads")
	flag.IntVar(&s.length, "length", 1024, "length of the queue, in packets")
	flag.IntVar(&s.size, "size", 64, "bytes in a datagram")
	flag.IntVar(&s.burst, "burst", 32, "datagrams that the sender hands to the kernel at once")
	flag.BoolVar(&s.gro, "gro", false, "let the receiver's device join a flow's datagrams (rx-udp-gro-forwarding, Linux 5.12)")
	hooks := flag.String("hook", "output,input", "where the queue is: output (of the sender), input (of the receiver)")
	flag.IntVar(&s.flows, "flows", 64, "flows of the sender")
	var rivals rivals
	flag.StringVar(&rivals.suricata, "suricata", os.Getenv("SURICATA_ROOT"), "root directory with Suricata; / if it is installed here")
	flag.StringVar(&rivals.goNFQueue, "go-nfqueue", os.Getenv("GO_NFQUEUE"), "a checkout of github.com/florianl/go-nfqueue")
	flag.Func("contestant", "`name=command`, another one; {queue} and {length} are replaced", rivals.add)
	flag.Parse()
	if s.size < 8 || s.size > 1400 || s.flows < 1 || s.burst < 1 || s.burst > 64 || s.rounds < 1 {
		log.Fatal("want 8 to 1400 bytes, a flow at least, 1 to 64 datagrams at once, a round at least")
	}
	if code, parent := ownSession(); parent {
		os.Exit(code)
	}
	if err := run(&s, &rivals, split(*measures), split(*hooks), split(*only)); err != nil {
		log.Fatal(err)
	}
}

func run(s *setup, rivals *rivals, measures, hooks, only []string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Geteuid() != 0 {
		return errors.New("needs root, for network namespaces and their packet queues")
	}
	if runtime.NumCPU() < 2 {
		return errors.New("needs two cores, one for the sender and one for the contestant")
	}
	s.sendCPU, s.readCPU = 0, 1
	if s.dir, err = os.MkdirTemp("", "bench-verdict"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	if err := s.connect(); err != nil {
		return err
	}
	all := contestants(ctx, s, rivals, only)
	s.hooks = hooks
	s.describe()
	for _, m := range measures {
		f, ok := map[string]func(context.Context, *setup, []*contestant) error{
			"accept": accept, "bulk": bulk, "gaps": gaps, "latency": latency, "endure": endure,
		}[m]
		if !ok {
			return fmt.Errorf("no measure %q", m)
		}
		if err := f(ctx, s, all); err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	return nil
}

// describe prints what the numbers below it depend on.
func (s *setup) describe() {
	var u unix.Utsname
	unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("Linux %s, %d cores, %s, load before %s\n", unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), runtime.Version(), strings.Join(strings.Fields(string(load))[:3], " "))
	fmt.Printf("sender on core %d, contestant on core %d, queue of %d, datagrams of %d bytes in %d flows, %d rounds of %v\n",
		s.sendCPU, s.readCPU, s.length, s.size, s.flows, s.rounds, s.time)
}

// ownSession runs the rest in a session of its own, which the scheduler then takes for
// a group (sched_autogroup, Linux 2.6.38) that goes before the rest of the machine: other
// people's work costs it little. It returns the exit code in the process that only waits.
func ownSession() (code int, parent bool) {
	const marker = "BENCH_VERDICT_SESSION"
	if os.Getenv(marker) != "" {
		// Without autogroups, priorities alone have to do.
		os.WriteFile("/proc/self/autogroup", []byte("-20"), 0)
		return 0, false
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // the signal is sent when the thread that starts it ends
	if err := cmd.Start(); err != nil {
		log.Print(err)
		return 1, true
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for sig := range signals {
			cmd.Process.Signal(sig)
		}
	}()
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), true
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}
