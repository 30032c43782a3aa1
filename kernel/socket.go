package kernel

import (
	"errors"
	"fmt"
	"net/netip"
)

// Socket is a socket that a task has open.
type Socket struct {
	FD           int
	Socket       Object // struct socket
	Sock         Addr   // struct sock, 0 for one that was shut down
	Family       string // "INET", "UNIX", "NETLINK" …; a number for others
	Type         string // "STREAM", "DGRAM" …
	Protocol     string // as its struct proto is called: "TCP", "MPTCP"
	State        string // of a TCP socket: "ESTABLISHED", "LISTEN"
	Source, Peer netip.AddrPort
	Path         string // of a UNIX socket; an abstract name begins with @
	// Received and Unsent are the bytes that the program has not read, and that are not
	// sent or not acknowledged, with what it takes to keep them; -1 when unknown.
	Received, Unsent int64
}

// tcpStates are TCP_* of include/net/tcp_states.h; sockets of other protocols use some of
// them, too.
var tcpStates = []string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
	"LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE"}

// socketFamilies are AF_* of include/linux/socket.h.
var socketFamilies = map[uint64]string{1: "UNIX", 2: "INET", 10: "INET6", 15: "KEY", 16: "NETLINK", 17: "PACKET", 29: "CAN", 31: "BLUETOOTH",
	30: "TIPC", 38: "ALG", 40: "VSOCK", 44: "XDP", 45: "MCTP"}

// socketTypes are SOCK_* of include/linux/net.h.
var socketTypes = map[uint64]string{1: "STREAM", 2: "DGRAM", 3: "RAW", 4: "RDM", 5: "SEQPACKET", 6: "DCCP", 10: "PACKET"}

// Sockets returns the sockets that a task has open. What could be read comes with the
// error.
func (k *Kernel) Sockets(t *Task) ([]Socket, error) {
	files, err := k.OpenFiles(t)
	errs := []error{err}
	var list []Socket
	for _, f := range files {
		if f.Type != "SOCK" {
			continue
		}
		s := Socket{FD: f.FD, Received: -1, Unsent: -1}
		if err := k.socket(f.File, &s); err != nil && len(errs) < 8 {
			errs = append(errs, fmt.Errorf("socket %d of pid %d: %w", f.FD, t.PID, err))
		}
		list = append(list, s)
	}
	return list, errors.Join(errs...)
}

func (k *Kernel) socket(file Object, s *Socket) error {
	at, err := file.Pointer("private_data")
	if err != nil {
		return err
	}
	if s.Socket, err = k.Object("socket", at); err != nil {
		return err
	}
	if s.Sock, err = s.Socket.Pointer("sk"); err != nil || s.Sock == 0 {
		return err
	}
	typ, err := s.Socket.Uint("type")
	if err != nil {
		return err
	}
	if s.Type = socketTypes[typ]; s.Type == "" {
		s.Type = fmt.Sprint(typ)
	}
	sk, err := k.Object("sock", s.Sock)
	if err != nil {
		return err
	}
	family, err := sk.Uint("__sk_common.skc_family")
	if err != nil {
		return err
	}
	if s.Family = socketFamilies[family]; s.Family == "" {
		s.Family = fmt.Sprint(family)
	}
	s.Protocol, _ = sk.String("__sk_common.skc_prot->name") // may be in a page of its own
	state, err := sk.Uint("__sk_common.skc_state")
	if err != nil {
		return err
	}
	if int(state) < len(tcpStates) {
		s.State = tcpStates[state]
	}
	if s.Received, err = sk.Int("sk_backlog.rmem_alloc.counter"); err != nil {
		s.Received = -1
	}
	if s.Unsent, err = sk.Int("sk_wmem_queued"); err != nil {
		s.Unsent = -1
	}
	switch s.Family {
	case "INET", "INET6":
		return s.inet(k, sk)
	case "UNIX":
		return s.unix(k)
	}
	return nil
}

// inet reads the addresses of a struct inet_sock.
func (s *Socket) inet(k *Kernel, sk Object) error {
	inet, err := k.Object("inet_sock", s.Sock)
	if err != nil {
		return err
	}
	port := func(o Object, path string) (uint16, error) { // __be16
		v, err := o.Uint(path)
		return uint16(v)<<8 | uint16(v)>>8, err
	}
	from, err := port(inet, "inet_sport")
	if err != nil {
		return err
	}
	to, err := port(sk, "__sk_common.skc_dport")
	if err != nil {
		return err
	}
	var source, peer netip.Addr
	if s.Family == "INET6" {
		if source, err = sk.ipv6("__sk_common.skc_v6_rcv_saddr"); err != nil {
			return err
		}
		if peer, err = sk.ipv6("__sk_common.skc_v6_daddr"); err != nil {
			return err
		}
	} else {
		a, err := inet.Uint("inet_saddr")
		if err != nil {
			return err
		}
		b, err := sk.Uint("__sk_common.skc_daddr")
		if err != nil {
			return err
		}
		source, peer = ipv4(uint32(a)), ipv4(uint32(b))
	}
	s.Source, s.Peer = netip.AddrPortFrom(source, from), netip.AddrPortFrom(peer, to)
	return nil
}

// unix reads the name that a struct unix_sock is bound to.
func (s *Socket) unix(k *Kernel) error {
	const family, longest = 2, 108 // of struct sockaddr_un
	u, err := k.Object("unix_sock", s.Sock)
	if err != nil {
		return err
	}
	addr, err := u.Pointer("addr")
	if err != nil || addr == 0 {
		return err
	}
	o, err := k.Object("unix_address", addr)
	if err != nil {
		return err
	}
	size, err := o.Int("len")
	if err != nil {
		return err
	}
	at, err := o.AddrOf("name")
	if err != nil {
		return err
	}
	n := min(max(int(size)-family, 0), longest)
	b, err := k.Slice(at+family, n)
	if err != nil || n == 0 {
		return err
	}
	if b[0] == 0 {
		s.Path = "@" + string(b[1:])
		return nil
	}
	s.Path, err = k.CString(at+family, n)
	return err
}
