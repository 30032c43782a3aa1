package verdict

import (
	"context"
	"maps"
	"net"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// devices knows the names of interfaces by their indexes. A packet only tells the index,
// and to ask the kernel for each would cost more than all the rest.
type devices struct {
	mu    sync.Mutex
	names atomic.Pointer[map[uint32]string] // never changed, only replaced
}

// name returns the name of an interface, "" for index 0 and for one that is gone.
func (d *devices) name(index uint32) string {
	if index == 0 {
		return ""
	}
	if names := d.names.Load(); names != nil {
		if name, ok := (*names)[index]; ok {
			return name
		}
	}
	return d.ask(index)
}

func (d *devices) ask(index uint32) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make(map[uint32]string)
	if old := d.names.Load(); old != nil {
		maps.Copy(names, *old)
	}
	// A failure is remembered too, until something changes: "" is a name.
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		names[index] = i.Name
	} else {
		names[index] = ""
	}
	d.names.Store(&names)
	return names[index]
}

// forget makes all names be asked for anew.
func (d *devices) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names.Store(nil)
}

// watch forgets the names whenever an interface changes, until the context ends.
func (d *devices) watch(ctx context.Context) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK})
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		conn.Close()
	}()
	go func() {
		for {
			// An error may be an overrun, after which nothing is known for sure; a
			// closed socket ends the loop.
			_, err := conn.Receive()
			d.forget()
			if err != nil && ctx.Err() != nil {
				return
			}
		}
	}()
	return nil
}
