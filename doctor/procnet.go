package doctor

import (
	"strconv"
	"strings"
)

// queue is a line of /proc/net/netfilter/nfnetlink_queue: a queue that somebody reads
// (seq_show in net/netfilter/nfnetlink_queue.c).
type queue struct {
	Number    uint16
	Port      uint32 // the reader's netlink port
	Waiting   uint32 // packets in the queue
	CopyMode  int    // 0 nothing, 1 metadata, 2 the packet
	CopyRange int    // bytes of a packet that the reader gets
	Dropped   uint32 // because the queue was full
	UserDrop  uint32 // because the reader's socket buffer was full
	Sequence  uint64 // packets so far
}

// copyPacket is NFQNL_COPY_PACKET.
const copyPacket = 2

// parseQueues reads the file; what is no line of it is passed over.
func parseQueues(text string) []queue {
	var all []queue
	for line := range strings.Lines(text) {
		n, ok := numbers(strings.Fields(line))
		if !ok || len(n) < 8 || n[0] > 0xffff {
			continue
		}
		all = append(all, queue{
			Number: uint16(n[0]), Port: uint32(n[1]), Waiting: uint32(n[2]), CopyMode: int(n[3]),
			CopyRange: int(min(n[4], 0xffff)), Dropped: uint32(n[5]), UserDrop: uint32(n[6]), Sequence: n[7],
		})
	}
	return all
}

func numbers(fields []string) ([]uint64, bool) {
	var all []uint64
	for _, f := range fields {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return nil, false
		}
		all = append(all, n)
	}
	return all, true
}

// netlinkSocket is a line of /proc/net/netlink.
type netlinkSocket struct {
	Protocol int // 12 is NETLINK_NETFILTER
	Port     uint32
	Waiting  uint64 // bytes in the receive buffer
	Drops    uint64
}

const netlinkNetfilter = 12

// parseNetlink reads the file: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode.
func parseNetlink(text string) []netlinkSocket {
	var all []netlinkSocket
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 9 {
			continue
		}
		protocol, err1 := strconv.Atoi(f[1])
		port, err2 := strconv.ParseUint(f[2], 10, 32)
		waiting, err3 := strconv.ParseUint(f[4], 10, 64)
		drops, err4 := strconv.ParseUint(f[8], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
			continue
		}
		all = append(all, netlinkSocket{protocol, uint32(port), waiting, drops})
	}
	return all
}

// tcpSocket is a line of /proc/net/tcp or tcp6.
type tcpSocket struct {
	LocalPort, RemotePort uint16
	State                 uint8 // as in include/net/tcp_states.h
}

// States of TCP. A request socket, TCP_NEW_SYN_RECV, is shown as SYN_RECV.
const (
	tcpSynRecv = 3
	tcpClose   = 7
	tcpListen  = 10
)

// parseTCP reads lines as "0: 0100007F:1F90 0100007F:D2F0 03 …".
func parseTCP(text string) []tcpSocket {
	var all []tcpSocket
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		local, ok1 := portOf(f[1])
		remote, ok2 := portOf(f[2])
		state, err := strconv.ParseUint(f[3], 16, 8)
		if ok1 && ok2 && err == nil {
			all = append(all, tcpSocket{local, remote, uint8(state)})
		}
	}
	return all
}

func portOf(address string) (uint16, bool) {
	i := strings.LastIndexByte(address, ':')
	n, err := strconv.ParseUint(address[i+1:], 16, 16)
	return uint16(n), i >= 0 && err == nil
}

// slabCache is a line of /proc/slabinfo.
type slabCache struct {
	Name    string
	Active  uint64 // objects in use, and those that CPUs have at hand
	Objects uint64
	Size    uint64 // of an object, in bytes
	PerSlab uint64
}

// parseSlabinfo reads version 2 of the file.
func parseSlabinfo(text string) []slabCache {
	var all []slabCache
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if n, ok := numbers(f[1:6]); ok {
			all = append(all, slabCache{f[0], n[0], n[1], n[2], n[3]})
		}
	}
	return all
}

// parseMeminfo returns /proc/meminfo in bytes.
func parseMeminfo(text string) map[string]uint64 {
	all := make(map[string]uint64)
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || len(f) == 0 {
			continue
		}
		n, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil || n > 1<<53 {
			continue
		}
		if len(f) > 1 && f[1] == "kB" {
			n <<= 10
		}
		all[name] = n
	}
	return all
}
