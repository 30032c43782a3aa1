package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// NetDevice is a network device: struct net_device.
type NetDevice struct {
	Object
	Name  string
	Index int
	MTU   int
	Flags uint64 // IFF_*, include/uapi/linux/if.h
	MAC   []byte
	Addrs []netip.Prefix // IPv4 first
}

// Neighbour is an entry of the ARP table, or of that of IPv6: struct neighbour.
type Neighbour struct {
	Addr   Addr
	IP     netip.Addr
	MAC    []byte
	Device string
	State  string // "REACHABLE", "STALE" … as ip-neighbour(8) has them
}

// Bounds: of devices, of the addresses of one, and of neighbours.
const (
	maxNetDevices = 1 << 18
	maxNetAddrs   = 1 << 16
	maxNeighbours = 1 << 20
)

// NetNamespace returns the address of the struct net that a task is in, 0 for one that
// has left its namespaces.
func (t *Task) NetNamespace() (Addr, error) {
	proxy, err := t.Pointer("nsproxy")
	if err != nil || proxy == 0 {
		return 0, err
	}
	return t.Pointer("nsproxy->net_ns")
}

// NetDevices returns the devices of the struct net at an address; 0 stands for init_net.
// What could be read comes with the error.
func (k *Kernel) NetDevices(namespace Addr) ([]NetDevice, error) {
	if namespace == 0 {
		var err error
		if namespace, err = k.Symbol("init_net"); err != nil {
			return nil, err
		}
	}
	ns, err := k.Object("net", namespace)
	if err != nil {
		return nil, err
	}
	head, err := ns.AddrOf("dev_base_head")
	if err != nil {
		return nil, err
	}
	devices, err := k.Structs("net_device", "dev_list", head)
	if err != nil {
		return nil, err
	}
	var list []NetDevice
	var first error
	for o, err := range devices {
		if err == nil && len(list) == maxNetDevices {
			err = fmt.Errorf("more than %d: %w", maxNetDevices, ErrCorrupt)
		}
		if err != nil {
			return list, fmt.Errorf("list the network devices: %w", err)
		}
		d := NetDevice{Object: o}
		if err := d.read(); err != nil && first == nil {
			first = fmt.Errorf("net_device %v: %w", o.Addr, err)
		}
		list = append(list, d)
	}
	return list, first
}

func (d *NetDevice) read() error {
	var err error
	if d.Name, err = d.String("name"); err != nil {
		return err
	}
	index, err := d.Int("ifindex")
	if err != nil {
		return err
	}
	mtu, err := d.Uint("mtu")
	if err != nil {
		return err
	}
	d.Index, d.MTU = int(index), int(mtu)
	if d.Flags, err = d.Uint("flags"); err != nil {
		return err
	}
	if n, err := d.Uint("addr_len"); err == nil && n > 0 && n <= 32 { // MAX_ADDR_LEN
		if at, err := d.Pointer("dev_addr"); err == nil && at != 0 {
			d.MAC = make([]byte, n)
			if err := d.k.Read(d.MAC, at); err != nil {
				d.MAC = nil
				return err
			}
		}
	}
	if err := d.readIPv4(); err != nil {
		return err
	}
	return d.readIPv6()
}

func (d *NetDevice) readIPv4() error {
	at, err := d.Pointer("ip_ptr")
	if err != nil || at == 0 {
		return err
	}
	in, err := d.k.Object("in_device", at)
	if err != nil {
		return err
	}
	if at, err = in.Pointer("ifa_list"); err != nil {
		return err
	}
	seen := map[Addr]bool{}
	for at != 0 {
		if seen[at] || len(seen) == maxNetAddrs {
			return fmt.Errorf("its addresses do not end: %w", ErrCorrupt)
		}
		seen[at] = true
		ifa, err := d.k.Object("in_ifaddr", at)
		if err != nil {
			return err
		}
		local, err := ifa.Uint("ifa_local")
		if err != nil {
			return err
		}
		bits, err := ifa.Uint("ifa_prefixlen")
		if err != nil {
			return err
		}
		d.Addrs = append(d.Addrs, netip.PrefixFrom(ipv4(uint32(local)), int(min(bits, 32))))
		if at, err = ifa.Pointer("ifa_next"); err != nil {
			return err
		}
	}
	return nil
}

// ipv4 makes an address of a __be32.
func ipv4(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.LittleEndian.AppendUint32(nil, v)))
}

func (d *NetDevice) readIPv6() error {
	at, err := d.Pointer("ip6_ptr")
	if err != nil || at == 0 {
		return err
	}
	in, err := d.k.Object("inet6_dev", at)
	if err != nil {
		return err
	}
	head, err := in.AddrOf("addr_list")
	if err != nil {
		return err
	}
	addrs, err := d.k.Structs("inet6_ifaddr", "if_list", head)
	if err != nil {
		return err
	}
	n := 0
	for ifa, err := range addrs {
		if err != nil {
			return err
		}
		if n++; n > maxNetAddrs {
			return fmt.Errorf("more than %d addresses: %w", maxNetAddrs, ErrCorrupt)
		}
		ip, err := ifa.ipv6("addr")
		if err != nil {
			return err
		}
		bits, err := ifa.Uint("prefix_len")
		if err != nil {
			return err
		}
		d.Addrs = append(d.Addrs, netip.PrefixFrom(ip, int(min(bits, 128))))
	}
	return nil
}

// ipv6 reads a struct in6_addr.
func (o Object) ipv6(path string) (netip.Addr, error) {
	at, err := o.AddrOf(path)
	if err != nil {
		return netip.Addr{}, err
	}
	var b [16]byte
	err = o.k.Read(b[:], at)
	return netip.AddrFrom16(b), err
}

// Neighbours returns the entries of the ARP table and of IPv6's, of all namespaces.
func (k *Kernel) Neighbours() ([]Neighbour, error) {
	var list []Neighbour
	var first error
	for _, name := range []string{"arp_tbl", "nd_tbl"} {
		at, err := k.Symbol(name)
		if err != nil {
			continue // IPv6 may be a module, or not there
		}
		some, err := k.neighbours(at)
		list = append(list, some...)
		if err != nil && first == nil {
			first = fmt.Errorf("read %s: %w", name, err)
		}
	}
	return list, first
}

// neighbours walks a struct neigh_table: its buckets begin chains, of neighbour.next, or
// of neighbour.hash since 6.13.
func (k *Kernel) neighbours(table Addr) ([]Neighbour, error) {
	const maxShift = 24
	t, err := k.Object("neigh_table", table)
	if err != nil {
		return nil, err
	}
	keyLen, err := t.Uint("key_len")
	if err != nil {
		return nil, err
	}
	shift, err := t.Uint("nht->hash_shift")
	if err != nil {
		return nil, err
	}
	if shift > maxShift || keyLen != 4 && keyLen != 16 {
		return nil, fmt.Errorf("2^%d buckets, keys of %d bytes: %w", shift, keyLen, ErrCorrupt)
	}
	buckets, link := "nht->hash_buckets", "next"
	if !t.Has(buckets) {
		buckets, link = "nht->hash_heads", "hash"
	}
	heads, err := t.Pointer(buckets)
	if err != nil {
		return nil, err
	}
	off, err := k.OffsetOf("neighbour", link)
	if err != nil {
		return nil, err
	}
	raw, err := k.Slice(heads, 8<<shift)
	if err != nil {
		return nil, err
	}
	var list []Neighbour
	seen := map[Addr]bool{}
	for ; len(raw) > 0; raw = raw[8:] {
		for node := Addr(le.Uint64(raw)); node != 0; {
			if seen[node] || len(list) == maxNeighbours {
				return list, fmt.Errorf("the chain at %v does not end: %w", node, ErrCorrupt)
			}
			seen[node] = true
			o, err := k.Object("neighbour", node-Addr(off))
			if err != nil {
				return list, err
			}
			n, err := k.neighbour(o, int(keyLen))
			if err != nil {
				return list, fmt.Errorf("neighbour %v: %w", o.Addr, err)
			}
			list = append(list, n)
			if node, err = k.Pointer(node); link == "next" {
				node, err = o.Pointer("next")
			}
			if err != nil {
				return list, err
			}
		}
	}
	return list, nil
}

// neighbourStates are NUD_* of include/uapi/linux/neighbour.h, by bit.
var neighbourStates = []string{"INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NOARP", "PERMANENT"}

func (k *Kernel) neighbour(o Object, keyLen int) (Neighbour, error) {
	n := Neighbour{Addr: o.Addr, State: "NONE"}
	key, err := o.AddrOf("primary_key")
	if err != nil {
		return n, err
	}
	b, err := k.Slice(key, keyLen)
	if err != nil {
		return n, err
	}
	n.IP, _ = netip.AddrFromSlice(b)
	state, err := o.Uint("nud_state")
	if err != nil {
		return n, err
	}
	for bit, name := range neighbourStates {
		if state>>bit&1 == 1 {
			n.State = name
		}
	}
	if n.Device, err = o.String("dev->name"); err != nil {
		return n, err
	}
	size, err := o.Uint("dev->addr_len")
	if err != nil {
		return n, err
	}
	mac, err := o.AddrOf("ha")
	if err != nil {
		return n, err
	}
	n.MAC = make([]byte, min(size, 32))
	return n, k.Read(n.MAC, mac)
}
