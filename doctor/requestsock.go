package doctor

import (
	"fmt"
	"strings"
)

// RequestSockets looks for what the nf_queue bug does silently: half-open connections'
// sockets that leak, and neighbours of theirs with changed ports.
var RequestSockets = &Check{
	Name: "request-sockets",
	Doc: `holds the request sockets in the slab caches against the half-open connections that there
are, and looks for sockets with ports that none can have: what is left of the nf_queue bug's
victims`,
	Run:     requestSockets,
	Applies: onMachine,
}

func requestSockets(s *Subject) []Finding {
	var sockets []tcpSocket
	var looked []string
	for _, name := range []string{"proc/net/tcp", "proc/net/tcp6"} {
		text, err := s.read(name)
		if err != nil {
			if len(looked) > 0 {
				break // no IPv6
			}
			return []Finding{unread("The TCP sockets", err, "/"+name)}
		}
		looked = append(looked, "/"+name)
		sockets = append(sockets, parseTCP(text)...)
	}
	return []Finding{impossiblePorts(sockets, looked), s.leaks(sockets)}
}

// impossiblePorts looks for request sockets, shown as SYN_RECV, that cannot be: a peer's port
// is never 0, and their own is that of a listening socket. The bug's decrement in a
// neighbouring request socket saturates at 0xc0000000 if it finds 0 or less, which are
// the ports 0 and 49152 (include/linux/refcount.h).
func impossiblePorts(sockets []tcpSocket, looked []string) Finding {
	listening := make(map[uint16]bool)
	half := 0
	for _, k := range sockets {
		switch k.State {
		case tcpListen:
			listening[k.LocalPort] = true
		case tcpSynRecv:
			half++
		}
	}
	var odd, orphans []string
	for _, k := range sockets {
		name := fmt.Sprintf("port %d here, %d there", k.LocalPort, k.RemotePort)
		switch {
		case k.State == tcpListen || k.State == tcpClose:
		case k.LocalPort == 0 || k.RemotePort == 0:
			odd = append(odd, name)
		case k.State == tcpSynRecv && !listening[k.LocalPort]:
			orphans = append(orphans, name)
		}
	}
	f := Finding{Looked: looked, Sure: Certain, Found: []string{fmt.Sprintf("%d sockets, %d of them half open", len(sockets), half)}}
	switch {
	case len(odd) > 0:
		f.State, f.Title, f.Advisory = Exposed, "Sockets have ports that none can have: their memory was written to", requestSockBug
		f.Sure = Likely
		f.Found = append(f.Found, list(odd, 5))
		f.Advice = []string{"See the findings on known bugs; reboot, since what else was written to is not known."}
	case len(orphans) > 0:
		f.State, f.Title, f.Sure = Weak, "Half-open connections to ports that nobody listens on", Guess
		f.Found = append(f.Found, list(orphans, 5))
		f.Advice = []string{"It is so for moments after a server has stopped. If it stays so, their memory may have been written to."}
	default:
		f.Title = "No socket has an impossible port"
	}
	return f
}

// leaks compares the request sockets in memory with those that are known.
func (s *Subject) leaks(sockets []tcpSocket) Finding {
	const looked = "/proc/slabinfo"
	text, err := s.read("proc/slabinfo")
	if err != nil {
		return unread("Leaks of request sockets", err, looked)
	}
	half := uint64(0)
	for _, k := range sockets {
		if k.State == tcpSynRecv {
			half++
		}
	}
	var active, slack uint64
	var found []string
	cpus := uint64(s.cpus())
	for _, c := range parseSlabinfo(text) {
		if !strings.HasPrefix(c.Name, "request_sock_") {
			continue
		}
		active += c.Active
		// Free objects in the slabs that CPUs hold count as active: one slab at work
		// and some in reserve (slub_set_cpu_partial in mm/slub.c).
		slack += cpus * (c.PerSlab + 64)
		found = append(found, fmt.Sprintf("%s: %d of %d objects in use", c.Name, c.Active, c.Objects))
	}
	f := Finding{Looked: []string{looked, "/proc/net/tcp"}, Sure: Certain, Found: append(found, fmt.Sprintf("%d half-open connections in this network namespace", half))}
	switch {
	case len(found) == 0:
		f.Title, f.State = "The kernel keeps request sockets in no cache of their own: a leak cannot be seen", Unknown
	case active > half+slack:
		f.Title, f.State, f.Sure, f.Advisory = "Far more request sockets in memory than half-open connections: they leak", Weak, Likely, requestSockBug
		f.Advice = []string{
			"Look again in some minutes: with the nf_queue bug the number only grows, by one for each SYN/ACK whose last reference a queue held.",
			"Other network namespaces (containers) have half-open connections of their own, which are not counted here.",
		}
		if has, _ := s.has(requestSockBug); has {
			f.State = Exposed
		}
	default:
		f.Title = "Request sockets do not leak"
	}
	return f
}

// cpus counts those that are online, 1 if that cannot be told.
func (s *Subject) cpus() int {
	text, err := s.read("proc/stat")
	if err != nil {
		return 1
	}
	n := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "cpu") && len(line) > 3 && line[3] >= '0' && line[3] <= '9' {
			n++
		}
	}
	return max(n, 1)
}
