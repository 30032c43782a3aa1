package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"inquest/kernel"
	"inquest/lab/gdb"
)

// The bytes behind the request socket in the crash that the case is about, by the
// members of struct sock that the kernel took them for.
var caseBytes = []struct {
	member string
	value  []byte
}{
	// One reference on the socket's memory: sk_free() goes on.
	{"sk_wmem_alloc", binary.LittleEndian.AppendUint32(nil, 1)},
	// Not a pointer, but not zero: sk_destruct() calls reuseport_detach_sock().
	{"sk_reuseport_cb", binary.LittleEndian.AppendUint64(nil, 0x37cbbd77ffff0000)},
	// A lock that is taken, so that bpf_sk_reuseport_detach() has to wait for it,
	{"sk_callback_lock.raw_lock.cnts", binary.LittleEndian.AppendUint32(nil, 0xff)},
	// behind a CPU 0x3ffe that does not exist: it writes to that one's queue node.
	{"sk_callback_lock.raw_lock.wait_lock", binary.LittleEndian.AppendUint32(nil, 0xfffcffff)},
	// (Since 6.0 sk_destruct() warns of a socket on this list.)
	{"defer_list.next", make([]byte, 8)},
}

// tcpNewSynRecv is the state that only request sockets have, include/net/tcp_states.h.
const tcpNewSynRecv = 12

// arrangeCrash waits for nf_queue to drop a request socket's last reference, and
// arranges the bytes behind it as the case had them the moment that sk_free() is called.
// It ends the guest's pause.
//
// In a kernel that does not call it for request sockets nothing is changed.
func (d *detective) arrangeCrash(ctx context.Context, vm *VM) error {
	conn, err := vm.Debugger(ctx)
	if err != nil {
		return err
	}
	if d.client, err = gdb.Attach(ctx, conn); err != nil {
		return err
	}
	err = d.client.Break(ctx, d.releaseRefs)
	if err == nil {
		err = vm.Resume()
	}
	if err == nil {
		watching, end := context.WithCancel(ctx)
		defer end()
		go func() {
			if vm.Events().WaitPause(watching, "survived") == nil {
				end()
			}
		}()
		if err = d.watch(watching); errors.Is(err, context.Canceled) && ctx.Err() == nil {
			err = nil // it has done nothing that is to be watched
		}
	}
	return errors.Join(err, d.leave())
}

// detective is the one who waits.
type detective struct {
	kernel     *kernel.Kernel
	experiment *Experiment
	client     *gdb.Client

	releaseRefs, skFree kernel.Addr // functions
	entrySock           uint64      // offset of nf_queue_entry.state.sk
	refcnt, state       uint64      // offsets of struct sock_common's
	offsets             []uint64    // of caseBytes in struct sock; none for a member that it lacks
}

const noOffset = ^uint64(0)

// lookUp takes addresses and offsets from the kernel itself.
func (d *detective) lookUp() (err error) {
	// A small function, which compilers may put into its only caller; both take the entry.
	for _, name := range []string{"nf_queue_entry_release_refs", "nf_queue_entry_free"} {
		if d.releaseRefs, err = d.kernel.Symbol(name); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	if d.skFree, err = d.kernel.Symbol("sk_free"); err != nil {
		return err
	}
	for _, o := range []struct {
		to          *uint64
		typ, member string
	}{
		{&d.entrySock, "struct nf_queue_entry", "state.sk"},
		{&d.refcnt, "struct sock_common", "skc_refcnt"},
		{&d.state, "struct sock_common", "skc_state"},
	} {
		if *o.to, err = d.kernel.OffsetOf(o.typ, o.member); err != nil {
			return err
		}
	}
	for _, b := range caseBytes {
		offset, err := d.kernel.OffsetOf("struct sock", b.member)
		if err != nil && b.member != "defer_list.next" {
			return err
		}
		if err != nil {
			offset = noOffset
		}
		d.offsets = append(d.offsets, offset)
	}
	return nil
}

// watch lets the machine run until the crash is arranged.
func (d *detective) watch(ctx context.Context) error {
	for {
		stop, err := d.client.Continue(ctx)
		if err != nil {
			return err
		}
		registers, err := d.client.Registers(ctx, stop.Thread)
		if err != nil {
			return err
		}
		argument := kernel.Addr(registers.Get(gdb.RDI))
		switch kernel.Addr(registers.Get(gdb.RIP)) {
		case d.releaseRefs:
			sock, err := d.word(ctx, argument+kernel.Addr(d.entrySock), 8)
			if err != nil {
				return err
			}
			last, err := d.isLastReference(ctx, kernel.Addr(sock))
			if err != nil {
				return err
			}
			if last {
				d.experiment.Tell("last_reference", kernel.Addr(sock).String())
				if err := d.client.Break(ctx, d.skFree); err != nil {
					return err
				}
			}
		case d.skFree:
			state, err := d.word(ctx, argument+kernel.Addr(d.state), 1)
			if err != nil {
				return err
			}
			if state == tcpNewSynRecv {
				return d.arrange(ctx, argument)
			}
		default:
			return fmt.Errorf("the machine stopped at %#x, signal %d", registers.Get(gdb.RIP), stop.Signal)
		}
	}
}

func (d *detective) isLastReference(ctx context.Context, sock kernel.Addr) (bool, error) {
	if sock == 0 {
		return false, nil
	}
	state, err := d.word(ctx, sock+kernel.Addr(d.state), 1)
	if err != nil || state != tcpNewSynRecv {
		return false, err
	}
	references, err := d.word(ctx, sock+kernel.Addr(d.refcnt), 4)
	return references == 1, err
}

// arrange writes the case's bytes behind a request socket.
func (d *detective) arrange(ctx context.Context, sock kernel.Addr) error {
	d.experiment.Tell("freed_as_sock", sock.String())
	for i, b := range caseBytes {
		if d.offsets[i] == noOffset {
			continue
		}
		addr := sock + kernel.Addr(d.offsets[i])
		before := make([]byte, len(b.value))
		if err := d.client.ReadMemory(ctx, addr, before); err != nil {
			return err
		}
		if bytes.Equal(before, b.value) {
			continue
		}
		if err := d.client.WriteMemory(ctx, addr, b.value); err != nil {
			return err
		}
		d.experiment.Tell("arranged "+b.member, fmt.Sprintf("offset %#x: %x, was %x", d.offsets[i], b.value, before))
	}
	return nil
}

// leave lets the machine run on without the debugger, also when the scenario has
// ended meanwhile.
func (d *detective) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if d.client.Running() {
		if err := d.client.Interrupt(); err != nil {
			return err
		}
		if _, err := d.client.Wait(ctx); err != nil {
			return err
		}
	}
	return d.client.Detach(ctx)
}

// word reads an unsigned number of size bytes.
func (d *detective) word(ctx context.Context, addr kernel.Addr, size int) (uint64, error) {
	var buf [8]byte
	err := d.client.ReadMemory(ctx, addr, buf[:size])
	return binary.LittleEndian.Uint64(buf[:]), err
}
