package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"inquest/heap"
	"inquest/kernel"
	"inquest/lab/guest/wire"
	"inquest/vmcore"
)

// reqskModules are those of packet queues; the kernels of this package's recipes have
// what is missing here built in.
var reqskModules = []string{"nf_tables", "nft_queue", "nft_ct", "nfnetlink_queue", "nf_conntrack_netlink", "veth", "bridge"}

// reqskAppend hides from the kernel that it runs in a guest (X86_FEATURE_HYPERVISOR).
// One that knows, and has no help of its hypervisor, has no queue of those that wait
// for a lock (virt_spin_lock in arch/x86/include/asm/qspinlock.h), and so cannot crash
// there.
var reqskAppend = []string{"clearcpuid=159"}

// The options of the scenarios nfqueue-reqsk.
var (
	reqskOutcome = Option{"outcome", "what lies behind the request socket: a listener's port above 32767, " +
		"bytes as the original crash had them (by a debugger), a freed request socket, or a living one",
		[]string{"warning", "crash", "leak", "neighbour"}, false}
	reqskWhere = []Option{
		{"family", "IP version; mapped is an IPv4 client of an IPv6 socket", []string{"ipv4", "mapped", "ipv6"}, false},
		{"path", "way of the packets: the loopback device, a cable between two namespaces, or two cables and a bridge", []string{"lo", "veth", "bridge"}, false},
		{"bind", "listeners are bound to their device, whose number then is in each request socket", []string{"no", "yes"}, false},
		{"hook", "where SYN/ACKs are queued", []string{"output", "postrouting", "prerouting", "input", "bridge"}, false},
	}
	reqskHow = []Option{
		{"verdict", "on the SYN/ACK that has the last reference; grow makes the packet longer, flush takes the rules away", []string{"accept", "drop", "grow", "flush"}, false},
		{"conntrack", "track connections, and show them to the daemon", []string{"no", "yes"}, false},
		{"gso", "packets are queued before they are segmented", []string{"no", "yes"}, false},
	}
	reqskAccept = Option{"accept", "the program calls accept() before the verdict", []string{"yes", "no"}, false}
)

// reqskScenarios are about the bug of nf_queue that upstream 747670fd9a2d fixed in
// 5.17: docs/case.md has the whole story.
var reqskScenarios = []*Scenario{
	{
		Name:    "nfqueue-reqsk/retransmit",
		Doc:     "a SYN/ACK that was sent again waits in a queue while its handshake ends",
		Options: slices.Concat([]Option{reqskOutcome}, reqskWhere, reqskHow, []Option{reqskAccept, guardOption}),
		Kernel:  "nfqbug-6.1", Modules: reqskModules, MemoryMiB: 256, Append: reqskAppend,
		Sets: retransmitSets, Prepare: prepareGuard, Meanwhile: reqskMeanwhile, Truth: reqskTruth, Happened: reqskHappened,
	},
	{
		Name:    "nfqueue-reqsk/expired",
		Doc:     "a SYN/ACK waits in a queue until its handshake is given up (tcp_synack_retries=0)",
		Options: slices.Concat([]Option{reqskOutcome}, reqskWhere, reqskHow, []Option{guardOption}),
		Kernel:  "nfqbug-6.1", Modules: reqskModules, MemoryMiB: 256, Append: reqskAppend,
		Sets: expiredSets, Prepare: prepareGuard, Meanwhile: reqskMeanwhile, Truth: reqskTruth, Happened: reqskHappened,
	},
	{
		Name: "nfqueue-reqsk/storm",
		Doc:  "connections made and closed as fast as can be while all that the server sends is queued",
		Options: []Option{
			{"outcome", "a listener's port below 32768, so that nothing is said, or above", []string{"leak", "warning"}, false},
			{"time", "how long", []string{"20s"}, true},
			{"delay", "of each verdict", []string{"0s", "700ms"}, true},
			{"queues", "with a thread each", []string{"1", "2", "4"}, true},
			{"pairs", "of a listener and its clients", []string{"1", "4"}, true},
			{"accept", "the server sleeps until a connection comes, or asks again and again", []string{"sleep", "spin"}, false},
			{"path", reqskWhere[1].Doc, []string{"lo", "veth", "bridge"}, false},
			{"hook", "where packets are queued", []string{"output", "postrouting"}, false},
			guardOption,
		},
		Kernel: "nfqbug-6.1", Modules: reqskModules, MemoryMiB: 256, Append: reqskAppend, Patience: 5 * time.Minute,
		Sets: stormSets, Prepare: prepareGuard, Meanwhile: reqskMeanwhile, Truth: reqskTruth, Happened: reqskHappened,
	},
}

// reqskTruth is what ought to happen: something in the kernels of the recipes nfqbug,
// under the conditions that the bug needs, and nothing else.
func reqskTruth(e *Experiment) Truth {
	if e.Kernel.Release != "" && !strings.Contains(e.Kernel.Release, "nfqbug") {
		return Truth{Outcome: Alive, Why: "the kernel has not got the bug"}
	}
	if e.Option("guard") != "none" {
		return Truth{Outcome: Alive, Why: "the kernel is shielded"}
	}
	if !reqskExposed(e.Option) {
		return Truth{Outcome: Alive, Why: "the queue has not got the last reference, or not the request socket's"}
	}
	panics := Truth{
		Outcome: Panicked, Classes: []string{"type-confusion"},
		Culprits: []string{"nf_queue_entry_release_refs", "sk_free"}, Object: "tcp_request_sock",
		Why: "the queue drops the last reference of a request socket as if it were a socket's",
	}
	outcome := e.Option("outcome")
	switch {
	case strings.HasSuffix(e.Scenario.Name, "/storm"): // a matter of chance
		if outcome == "leak" {
			panics = Truth{Classes: []string{"refcount", "type-confusion"}, Why: panics.Why}
		}
		panics.Outcome = ""
		return panics
	case outcome == "crash", outcome == "warning" && (e.Option("bind") == "no" || e.Fact(countMember) != "skc_bound_dev_if"):
		return panics
	case e.Fact(countMember) != "skc_bound_dev_if":
		return Truth{Outcome: Alive, Why: "the neighbour's ports are decremented"}
	case e.Option("bind") == "yes" && e.Option("path") == "lo":
		panics.Outcome, panics.Classes = "", append(panics.Classes, "wild-pointer")
		panics.Why = "where the neighbour's device is decremented, 1 becomes 0: the request socket is freed as a socket"
		return panics
	case e.Option("bind") == "yes":
		return Truth{Outcome: Alive, Why: "the neighbour's device is decremented"}
	}
	// No device is 0: the kernel warns, and lives on.
	return Truth{
		Outcome: Warned, Classes: []string{"refcount"},
		Why: "the neighbour's device is decremented, which is none",
	}
}

// reqskExposed says whether the bug's conditions hold: the socket of the hook's state
// is the request socket, and the queue has its last reference.
func reqskExposed(option func(string) string) bool {
	switch {
	case option("accept") == "no": // the listener's queue has another
		return false
	case option("family") == "ipv6": // tcp_v6_send_synack hands the listener to ip6_xmit
		return false
	case option("hook") != "output" && option("hook") != "postrouting": // no socket any more
		return false
	}
	return true
}

// reqskMeanwhile is the host's part: it attaches the debugger, and reads the survivor.
func reqskMeanwhile(ctx context.Context, vm *VM, e *Experiment) error {
	events := vm.Events()
	for {
		paused, err := events.Wait(ctx, wire.Paused)
		if err != nil {
			return err
		}
		switch paused.Name {
		case "armed":
			err = arm(ctx, vm, e)
		case "survived":
			err = readLive(ctx, vm, e)
			if err == nil {
				err = vm.Resume()
			}
		}
		if err != nil {
			return err
		}
	}
}

// arm prepares for what the next verdict does.
func arm(ctx context.Context, vm *VM, e *Experiment) error {
	k, release, err := openLive(ctx, vm, e)
	if err != nil {
		return err
	}
	slot, _ := e.Fact("slot").(float64)
	err = tellCountMember(k, uint64(slot), e)
	d := &detective{kernel: k, experiment: e}
	if err == nil && e.Option("outcome") == "crash" {
		err = d.lookUp()
	}
	release()
	switch {
	case err != nil:
		return err
	case e.Option("outcome") == "crash":
		e.Progress("attach the debugger")
		return d.arrangeCrash(ctx, vm)
	}
	return vm.Resume()
}

// openLive dumps a living machine, and opens its kernel. The machine stands still
// until release is called.
func openLive(ctx context.Context, vm *VM, e *Experiment) (k *kernel.Kernel, release func(), err error) {
	if err := vm.Stop(ctx); err != nil {
		return nil, nil, err
	}
	path, err := filepath.Abs(filepath.Join(e.Dir, "live.elf"))
	if err != nil {
		return nil, nil, err
	}
	var dump *vmcore.Dump
	release = func() {
		if dump != nil {
			dump.Close()
		}
		os.Remove(path)
		vm.Continue(ctx)
	}
	os.Remove(path)
	if err = vm.Dump(ctx, FormatELF, path); err == nil {
		if dump, err = vmcore.Open(path); err == nil {
			k, err = kernel.Open(dump)
		}
	}
	if err != nil {
		release()
		return nil, nil, fmt.Errorf("read the living guest: %w", err)
	}
	return k, release, nil
}

// readLive looks for request sockets that were lost, without asking the guest: they
// are allocated, and have no references, which nothing that is in use can be.
func readLive(ctx context.Context, vm *VM, e *Experiment) error {
	e.Progress("read the living guest")
	k, release, err := openLive(ctx, vm, e)
	if err != nil {
		return err
	}
	defer release()
	name := "request_sock_TCP"
	if e.Option("family") == "ipv6" {
		name = "request_sock_TCPv6"
	}
	h := heap.New(k)
	cache, err := h.CacheOf(name)
	if err != nil {
		return err
	}
	allocated, lost := 0, []string{}
	for object, err := range h.Objects(cache) {
		if err != nil {
			return fmt.Errorf("read the objects of %s: %w", name, err)
		}
		if object.State != heap.Allocated {
			continue
		}
		allocated++
		o, err := k.Object("struct sock_common", object.Addr)
		if err != nil {
			return err
		}
		references, err := o.Uint("skc_refcnt.refs.counter")
		state, stateErr := o.Uint("skc_state")
		port, portErr := o.Uint("skc_num")
		if err := errors.Join(err, stateErr, portErr); err != nil {
			return err
		}
		if references == 0 {
			lost = append(lost, fmt.Sprintf("%v: skc_state %d, skc_num %d", object.Addr, state, port))
		}
	}
	if e.Fact(countMember) == nil {
		if err := tellCountMember(k, cache.Size, e); err != nil {
			return err
		}
	}
	e.Tell("live_allocated", allocated)
	e.Tell("live_lost", len(lost))
	e.Tell("live_lost_objects", lost[:min(len(lost), 16)])
	return nil
}

// countMember is the fact which member of the next request socket lies where the
// kernel takes the victim's sk_wmem_alloc to be; "none" if none does.
const countMember = "count_member"

// tellCountMember finds that member, given the distance of two request sockets.
func tellCountMember(k *kernel.Kernel, slot uint64, e *Experiment) error {
	offset, err := k.OffsetOf("struct sock", "sk_wmem_alloc")
	if err != nil {
		return err
	}
	o, err := k.Object("struct sock_common", 0)
	if err != nil {
		return err
	}
	member := "none"
	if offset >= slot {
		if place, ok := kernel.PlaceAt(o.Type, offset-slot); ok {
			member, _, _ = strings.Cut(place.Path, ".")
		}
	}
	e.Tell(countMember, member)
	return nil
}
