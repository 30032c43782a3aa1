package rule

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The named lists of a file, and the constant sets in conditions.

// addrSet is a set of addresses.
type addrSet struct {
	prefixes []netip.Prefix
	table    *prefixTable[struct{}]
}

func newAddrSet(prefixes []netip.Prefix) *addrSet {
	values := make(map[netip.Prefix]struct{}, len(prefixes))
	for _, p := range prefixes {
		values[unmapped(p)] = struct{}{}
	}
	s := &addrSet{table: newPrefixTable(values)}
	for p := range values {
		s.prefixes = append(s.prefixes, p)
	}
	slices.SortFunc(s.prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return s
}

func (s *addrSet) has(a netip.Addr) bool {
	_, i := s.table.find(a)
	return i >= 0
}

// parsePrefix reads an address or a prefix.
func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return p, fmt.Errorf("%q is no network: write 192.0.2.0/24 or 2001:db8::/32", text)
		}
		if p != p.Masked() {
			return p, fmt.Errorf("%s has bits set behind its prefix length; did you mean %s?", text, p.Masked())
		}
		return unmapped(p), nil
	}
	a, err := parseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is no address: write 192.0.2.1 or 2001:db8::1", text)
	}
	return a.Unmap(), nil
}

// portSet is a set of ports.
type portSet struct {
	bits  [1 << 16 / 64]uint64
	count int
}

func (s *portSet) add(first, last uint16) {
	for p := int(first); p <= int(last); p++ {
		if s.bits[p>>6]>>(p&63)&1 == 0 {
			s.bits[p>>6] |= 1 << (p & 63)
			s.count++
		}
	}
}

func (s *portSet) has(port int64) bool {
	return port >= 0 && port < 1<<16 && s.bits[port>>6]>>(port&63)&1 != 0
}

// ports returns the members in order.
func (s *portSet) ports() []uint16 {
	all := make([]uint16, 0, s.count)
	for p := range 1 << 16 {
		if s.has(int64(p)) {
			all = append(all, uint16(p))
		}
	}
	return all
}

// parsePorts reads "443" or "8000-8080".
func parsePorts(text string) (first, last uint16, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	a, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	b, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	if err1 != nil || err2 != nil || a > b {
		return 0, 0, fmt.Errorf("%q is no port: write 443 or 8000-8080, up to 65535", text)
	}
	return uint16(a), uint16(b), nil
}

// domainSet is a set of host names and of domains with all below.
type domainSet struct {
	entries map[string]domainKind
}

type domainKind uint8

const (
	nameItself domainKind = 1 << iota // "example.com"
	namesBelow                        // "*.example.com"; ".example.com" is both
)

func (s *domainSet) has(name string) bool {
	if s.entries[name]&nameItself != 0 {
		return true
	}
	for {
		i := strings.IndexByte(name, '.')
		if i < 0 {
			return false
		}
		name = name[i+1:]
		if s.entries[name]&namesBelow != 0 {
			return true
		}
	}
}

// suffixes are what the names in the set end with.
func (s *domainSet) suffixes() []string {
	all := make([]string, 0, len(s.entries))
	for name, kind := range s.entries {
		if kind&nameItself == 0 {
			name = "." + name
		}
		all = append(all, name)
	}
	return all
}

// add reads "example.com", ".example.com" (with all below) or "*.example.com" (only
// those below).
func (s *domainSet) add(text string) error {
	name, kind := strings.ToLower(strings.TrimSuffix(text, ".")), nameItself
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		name, kind = rest, namesBelow
	} else if rest, ok := strings.CutPrefix(name, "."); ok {
		name, kind = rest, nameItself|namesBelow
	}
	if name == "" || len(name) > 253 || strings.Contains(name, "..") || strings.ContainsAny(name, "*/: \t\"'") || name[0] == '.' {
		return fmt.Errorf("%q is no domain: write example.com, .example.com for all below too, or *.example.com for those below only", text)
	}
	s.entries[name] |= kind
	return nil
}
