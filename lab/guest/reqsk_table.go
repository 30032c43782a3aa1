//go:build linux

package guest

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// halfOpen is a connection whose handshake has begun, as /proc/net/tcp shows it: a
// request socket, struct tcp_request_sock.
type halfOpen struct {
	Local, Remote netip.AddrPort
	// Object is its address; 0 where the kernel does not show it. It does with
	// kernel.kptr_restrict=1, to root.
	Object uint64
}

// halfOpens lists the connections of a namespace that are half open.
func (n *netns) halfOpens() (all []halfOpen, err error) {
	err = n.do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			// Not below /proc/self, which is that of the main thread.
			text, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			more, err := parseHalfOpens(string(text))
			if err != nil {
				return fmt.Errorf("/proc/net/%s: %w", name, err)
			}
			all = append(all, more...)
		}
		return nil
	})
	return all, err
}

// parseHalfOpens reads the table that tcp_seq_ops prints (net/ipv4/tcp_ipv4.c and
// net/ipv6/tcp_ipv6.c): a head and a line each, with addresses as words of the
// machine, ports, and the state, which is 3 for TCP_SYN_RECV.
func parseHalfOpens(text string) ([]halfOpen, error) {
	var all []halfOpen
	_, lines, _ := strings.Cut(text, "\n")
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) < 12 {
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		if f[3] != "03" {
			continue
		}
		local, err := parseEndpoint(f[1])
		if err != nil {
			return nil, err
		}
		remote, err := parseEndpoint(f[2])
		if err != nil {
			return nil, err
		}
		const upperHalf = 1 << 63 // anything else is a hash, or "(____ptrval____)"
		object, err := strconv.ParseUint(f[11], 16, 64)
		if err != nil || object < upperHalf {
			object = 0
		}
		all = append(all, halfOpen{local, remote, object})
	}
	return all, nil
}

// parseEndpoint reads "0100007F:1F90", which is 127.0.0.1:8080.
func parseEndpoint(text string) (netip.AddrPort, error) {
	words, digits, _ := strings.Cut(text, ":")
	addr, err := hex.DecodeString(words)
	port, portErr := strconv.ParseUint(digits, 16, 16)
	if err != nil || portErr != nil || len(addr)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("unexpected address %q", text)
	}
	for i := 0; i < len(addr); i += 4 { // printed as little-endian words
		addr[i], addr[i+1], addr[i+2], addr[i+3] = addr[i+3], addr[i+2], addr[i+1], addr[i]
	}
	ip, ok := netip.AddrFromSlice(addr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("unexpected address %q", text)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil
}

// slabCache is a line of /proc/slabinfo.
type slabCache struct {
	Objects int    // allocated
	Slot    uint64 // bytes from one object to the next
}

// readSlab reads what the kernel counts of a slab cache. Objects in the slabs that
// CPUs have at hand count as allocated, so those slabs are taken from them first.
func readSlab(cache string) (slabCache, error) {
	if err := os.WriteFile("/sys/kernel/slab/"+cache+"/shrink", []byte("1"), 0); err != nil {
		return slabCache{}, err
	}
	text, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return slabCache{}, err
	}
	return parseSlab(string(text), cache)
}

func parseSlab(text, cache string) (s slabCache, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != cache {
			continue
		}
		if s.Objects, err = strconv.Atoi(f[1]); err == nil {
			s.Slot, err = strconv.ParseUint(f[3], 10, 32)
		}
		if err != nil {
			return s, fmt.Errorf("/proc/slabinfo: %w", err)
		}
		return s, nil
	}
	return s, fmt.Errorf("/proc/slabinfo has no %s", cache)
}
