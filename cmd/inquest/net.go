package main

import (
	"cmp"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/pflag"

	"inquest/kernel"
)

var netCommand = &command{
	name:  "net",
	args:  "[PID | TASK]...",
	max:   -1,
	short: "show network devices, neighbours, or the sockets of a task",
	long: `Show the network devices of the first namespace, or with -n of that of a task, and
their addresses. With -a: the neighbours, which are the ARP table and that of IPv6, of
all namespaces.

With -s: the sockets that tasks have open, or the one that crashed: number, the
addresses of struct socket and struct sock, family and type, where from and where to,
state, and how many bytes wait to be read and to be sent, with their overhead. -S
shows each struct sock whole besides. Given tasks, or within foreach, -s is meant.`,
	example: `inquest net vmcore
inquest net vmcore -a
inquest net vmcore -s 1234
inquest foreach vmcore user net --json`,
	complete: completeTask,
	setup: func(f *pflag.FlagSet) runFunc {
		neighbours := f.BoolP("arp", "a", false, "show the neighbours")
		namespace := f.StringP("namespace", "n", "", "the devices that `PID|TASK` sees")
		sockets := f.BoolP("sockets", "s", false, "show the sockets of tasks")
		whole := f.BoolP("structs", "S", false, "show the sockets of tasks, each with its struct sock")
		return func(s *session, args []string) error {
			k, err := s.typedKernel()
			if err != nil {
				return err
			}
			switch {
			case *neighbours:
				return netNeighbours(s, k)
			case *sockets || *whole || len(args) > 0:
				tasks, err := contextTasks(s, k, args)
				if err != nil {
					return err
				}
				return netSockets(s, k, tasks, *whole)
			}
			return netDevices(s, k, *namespace)
		}
	},
}

func netDevices(s *session, k *kernel.Kernel, task string) error {
	var ns kernel.Addr
	if task != "" {
		tasks, err := findTasks(k, task)
		if err != nil {
			return err
		}
		if ns, err = tasks[0].NetNamespace(); err != nil {
			return err
		}
		if ns == 0 {
			return fmt.Errorf("pid %d has left its namespaces", tasks[0].PID)
		}
	}
	devices, err := k.NetDevices(ns)
	if err != nil && len(devices) == 0 {
		return err
	}
	s.miss(err)
	type deviceJSON struct {
		Device    hex      `json:"net_device"`
		Name      string   `json:"name"`
		Index     int      `json:"index"`
		MTU       int      `json:"mtu"`
		Up        bool     `json:"up"`
		Flags     hex      `json:"flags"`
		MAC       string   `json:"mac"`
		Addresses []string `json:"addresses"`
	}
	list := []deviceJSON{}
	for _, d := range devices {
		const up = 1 // IFF_UP
		j := deviceJSON{hex(d.Addr), d.Name, d.Index, d.MTU, d.Flags&up != 0, hex(d.Flags), net.HardwareAddr(d.MAC).String(), []string{}}
		for _, a := range d.Addrs {
			j.Addresses = append(j.Addresses, a.String())
		}
		list = append(list, j)
	}
	if s.json {
		return s.writeJSON(struct {
			Devices []deviceJSON `json:"devices"`
			Missing []string     `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	s.printf("%s\n", s.term.paint(bold, "   NET_DEVICE     NAME       STATE  MTU    HW ADDRESS         IP ADDRESS(ES)"))
	for _, j := range list {
		state := "down"
		if j.Up {
			state = "up"
		}
		line := fmt.Sprintf("%016x  %-10s %-5s %6d  %-17s  %s", uint64(j.Device), clean(j.Name), state, j.MTU, j.MAC, strings.Join(j.Addresses, ", "))
		s.printf("%s\n", strings.TrimRight(line, " "))
	}
	s.missing()
	return nil
}

func netNeighbours(s *session, k *kernel.Kernel) error {
	neighbours, err := k.Neighbours()
	if err != nil && len(neighbours) == 0 {
		return err
	}
	s.miss(err)
	type neighbourJSON struct {
		Neighbour hex    `json:"neighbour"`
		IP        string `json:"ip"`
		MAC       string `json:"mac"`
		Device    string `json:"device"`
		State     string `json:"state"`
	}
	list := []neighbourJSON{}
	for _, n := range neighbours {
		list = append(list, neighbourJSON{hex(n.Addr), n.IP.String(), net.HardwareAddr(n.MAC).String(), n.Device, n.State})
	}
	if s.json {
		return s.writeJSON(struct {
			Neighbours []neighbourJSON `json:"neighbours"`
			Missing    []string        `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	s.printf("%s\n", s.term.paint(bold, "   NEIGHBOUR      IP ADDRESS                HW ADDRESS         DEVICE      STATE"))
	for _, j := range list {
		s.printf("%016x  %-25s %-17s  %-10s  %s\n", uint64(j.Neighbour), j.IP, j.MAC, clean(j.Device), j.State)
	}
	s.missing()
	return nil
}

type socketJSON struct {
	FD       int           `json:"fd"`
	Socket   hex           `json:"socket"`
	Sock     hex           `json:"sock"`
	Family   string        `json:"family"`
	Type     string        `json:"type"`
	Protocol string        `json:"protocol"`
	State    string        `json:"state"`
	Source   string        `json:"source,omitempty"`
	Peer     string        `json:"peer,omitempty"`
	Path     string        `json:"path,omitempty"`
	Received *int64        `json:"received_bytes"` // null when unknown
	Unsent   *int64        `json:"unsent_bytes"`
	Value    *kernel.Value `json:"value,omitempty"` // struct sock, with -S
}

func newSocketJSON(o kernel.Socket) socketJSON {
	j := socketJSON{FD: o.FD, Socket: hex(o.Socket.Addr), Sock: hex(o.Sock), Family: o.Family, Type: o.Type, Protocol: o.Protocol, State: o.State,
		Path: o.Path}
	if o.Received >= 0 {
		j.Received = &o.Received
	}
	if o.Unsent >= 0 {
		j.Unsent = &o.Unsent
	}
	if o.Source.IsValid() {
		j.Source, j.Peer = o.Source.String(), o.Peer.String()
	}
	return j
}

func netSockets(s *session, k *kernel.Kernel, tasks []*kernel.Task, whole bool) error {
	type taskSockets struct {
		taskRef
		Sockets []socketJSON `json:"sockets"` // null when the dump does not tell
	}
	list := []taskSockets{}
	for i, t := range tasks {
		sockets, err := k.Sockets(t)
		s.miss(err)
		j := taskSockets{taskRef: *refTo(t)}
		if err == nil || len(sockets) > 0 {
			j.Sockets = []socketJSON{}
		}
		for _, o := range sockets {
			socket := newSocketJSON(o)
			if whole && o.Sock != 0 {
				sk, err := k.Object("sock", o.Sock)
				if err == nil {
					var v kernel.Value
					if v, err = sk.Value(); err == nil {
						socket.Value = &v
					}
				}
				s.miss(err)
			}
			j.Sockets = append(j.Sockets, socket)
		}
		if s.json {
			list = append(list, j)
			continue
		}
		if i > 0 {
			s.printf("\n")
		}
		s.taskHeader(t)
		switch {
		case j.Sockets == nil:
			s.printf("The dump does not tell which sockets\n")
		case len(j.Sockets) == 0:
			s.printf("No open sockets.\n")
		default:
			socketsText(s, j.Sockets)
		}
	}
	if s.json {
		return s.writeJSON(struct {
			Tasks   []taskSockets `json:"tasks"`
			Missing []string      `json:"missing,omitempty"`
		}{list, s.missing()})
	}
	s.missing()
	return nil
}

func socketsText(s *session, sockets []socketJSON) {
	s.printf("FD      SOCKET            SOCK       FAMILY:TYPE SOURCE-PORT           DESTINATION-PORT      STATE       RECV-Q SEND-Q\n")
	for _, j := range sockets {
		source, peer := dashed(j.Source), dashed(j.Peer)
		if j.Path != "" {
			source = clean(j.Path)
		}
		s.printf("%2d %016x %016x %-11s %-21s %-21s %-11s %6s %6s\n", j.FD, uint64(j.Socket), uint64(j.Sock), cmp.Or(j.Family, "?")+":"+cmp.Or(j.Type, "?"), source, peer, j.State, orUnknown(j.Received), orUnknown(j.Unsent))
		if j.Value != nil {
			s.printf("%s", cleanLines(j.Value.Format(kernel.Style{Width: s.term.width})))
		}
	}
}

// dashed writes an address and its port as crash(8) does: 127.0.0.1-7001.
func dashed(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host + "-" + port
}
