package kernel

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// Limits on BTF. A distribution's kernel has 110,000 types in 5 MiB, an allmodconfig
// one about 300,000.
const (
	maxBTF      = 48 << 20
	maxBTFTypes = 1 << 19
	maxBTFNames = 128 << 20 // bytes of all names, counted as often as they are used
	// maxBTFDepth bounds how deep the library recurses into a type graph, at 2
	// KiB of stack each. The kernels of 5.10 to 7.3 need at most 4,700.
	maxBTFDepth = 1 << 15
	btfMagic    = "\x9f\xeb\x01"
)

// BTF kinds (include/uapi/linux/btf.h).
const (
	btfInt       = 1
	btfPtr       = 2
	btfArray     = 3
	btfStruct    = 4
	btfUnion     = 5
	btfEnum      = 6
	btfFwd       = 7
	btfTypedef   = 8
	btfVolatile  = 9
	btfConst     = 10
	btfRestrict  = 11
	btfFunc      = 12
	btfFuncProto = 13
	btfVar       = 14
	btfDatasec   = 15
	btfFloat     = 16
	btfDeclTag   = 17
	btfTypeTag   = 18
	btfEnum64    = 19
)

// btfIndex is what is kept of a BTF section besides the library's view of it: the
// kind and the name of every type, to look names up, and what a module's BTF needs
// to know of the kernel's.
type btfIndex struct {
	base    *btfIndex // nil for the kernel's
	firstID int       // of kinds[0]; the kernel's is 0, which is void
	kinds   []uint8
	vlens   []uint16 // members, parameters, values
	names   []uint32 // offsets in the string section, which goes on from base's
	refs    []uint32 // the size of a struct, union, enum, int; the id of what others refer to
	strings []byte
	depth   int  // no type graph is deeper
	elfData bool // has a section that the library would complete from an ELF file

	functionsOnce sync.Once
	functions     *functions
}

// btfSize returns the length that a BTF header claims.
func btfSize(h []byte) (int, error) {
	if len(h) < 24 || string(h[:3]) != btfMagic {
		return 0, fmt.Errorf("BTF header: %w", ErrCorrupt)
	}
	u32 := func(at int) uint64 { return uint64(le.Uint32(h[at:])) }
	hdr, typeOff, typeLen, strOff, strLen := u32(4), u32(8), u32(12), u32(16), u32(20)
	n := hdr + max(typeOff+typeLen, strOff+strLen)
	if hdr < 24 || n > maxBTF {
		return 0, fmt.Errorf("BTF of %d bytes: %w", n, ErrCorrupt)
	}
	return int(n), nil
}

// checkBTF verifies all that the library takes on trust: it resolves types by
// recursion, and leaves half a graph behind where a reference or a name is bad. base
// is nil for the kernel's own BTF.
func checkBTF(raw []byte, base *btfIndex) (*btfIndex, error) {
	n, err := btfSize(raw)
	if err != nil {
		return nil, err
	}
	if n > len(raw) {
		return nil, fmt.Errorf("BTF ends at %d of %d: %w", len(raw), n, ErrCorrupt)
	}
	hdr := int(le.Uint32(raw[4:]))
	section := func(at int) []byte {
		return raw[hdr+int(le.Uint32(raw[at:])):][:le.Uint32(raw[at+4:])]
	}
	c := btfChecker{types: section(8)}
	c.strings = section(16)
	if len(c.strings) == 0 || c.strings[len(c.strings)-1] != 0 {
		return nil, fmt.Errorf("BTF strings do not end: %w", ErrCorrupt)
	}
	if c.base = base; base != nil {
		c.firstID = base.firstID + len(base.kinds)
	}
	for _, pass := range []func() error{c.count, c.walk, c.checkTags, c.measure} {
		if err := pass(); err != nil {
			return nil, err
		}
	}
	c.strings = slices.Clone(c.strings) // lets go of raw
	return &c.btfIndex, nil
}

// btfChecker is the type graph of a BTF section, as it is being verified.
type btfChecker struct {
	btfIndex
	types  []byte
	total  uint32   // ids are below
	named  int      // bytes of names so far
	edges  []uint32 // all that each type refers to, by index in kinds
	starts []uint32 // where the edges of each type begin, and one more
	tags   []uint32 // the declaration tags: index in kinds, component
}

// btfRecord splits off the first type.
func btfRecord(types []byte) (kind uint8, vlen int, record, rest []byte, err error) {
	if len(types) < 12 {
		return 0, 0, nil, nil, fmt.Errorf("BTF type of %d bytes: %w", len(types), ErrCorrupt)
	}
	info := le.Uint32(types[4:])
	kind, vlen = uint8(info>>24&0x1f), int(info&0xffff)
	size := 12
	switch kind {
	case btfInt, btfVar, btfDeclTag:
		size += 4
	case btfArray:
		size += 12
	case btfStruct, btfUnion, btfDatasec, btfEnum64:
		size += 12 * vlen
	case btfEnum, btfFuncProto:
		size += 8 * vlen
	case btfPtr, btfFwd, btfTypedef, btfVolatile, btfConst, btfRestrict, btfFunc, btfFloat, btfTypeTag:
	default:
		return 0, 0, nil, nil, fmt.Errorf("BTF type of kind %d: %w", kind, ErrCorrupt)
	}
	if size > len(types) {
		return 0, 0, nil, nil, fmt.Errorf("BTF type of %d bytes in %d: %w", size, len(types), ErrCorrupt)
	}
	return kind, vlen, types[:size], types[size:], nil
}

// count makes room for the types and the references between them.
func (c *btfChecker) count() error {
	n, refs := 0, 0
	for types := c.types; len(types) > 0; n++ {
		kind, vlen, _, rest, err := btfRecord(types)
		if err != nil {
			return err
		}
		switch kind {
		case btfStruct, btfUnion, btfDatasec, btfFuncProto:
			refs += vlen
		}
		refs += 2
		types = rest
	}
	if c.base == nil {
		n++ // void
	}
	if c.firstID+n > maxBTFTypes {
		return fmt.Errorf("BTF of more than %d types: %w", maxBTFTypes, ErrCorrupt)
	}
	c.total = uint32(c.firstID + n)
	c.kinds = make([]uint8, 0, n)
	c.vlens = make([]uint16, 0, n)
	c.names = make([]uint32, 0, n)
	c.refs = make([]uint32, 0, n)
	c.starts = make([]uint32, 1, n+1)
	c.edges = make([]uint32, 0, refs)
	if c.base == nil {
		c.add(0, 0, 0, 0)
	}
	return nil
}

// add ends a type, when its edges are there.
func (c *btfChecker) add(kind uint8, vlen int, name, ref uint32) {
	c.kinds = append(c.kinds, kind)
	c.vlens = append(c.vlens, uint16(vlen))
	c.names = append(c.names, name)
	c.refs = append(c.refs, ref)
	c.starts = append(c.starts, uint32(len(c.edges)))
}

// walk verifies every reference and name, and collects the edges.
func (c *btfChecker) walk() error {
	bad := false
	ref := func(id uint32) {
		if id >= c.total {
			bad = true
		} else if id >= uint32(c.firstID) && id > 0 {
			c.edges = append(c.edges, id-uint32(c.firstID))
		}
	}
	name := func(off uint32) {
		s, ok := c.stringAt(off)
		if c.named += len(s); !ok || len(s) > maxNameLen || c.named > maxBTFNames {
			bad = true
		}
	}
	for types := c.types; len(types) > 0; {
		kind, vlen, record, rest, err := btfRecord(types)
		if err != nil {
			return err
		}
		types = rest
		nameOff, refTo := le.Uint32(record), le.Uint32(record[8:])
		name(nameOff)
		parts := record[12:]
		switch kind {
		case btfPtr, btfTypedef, btfVolatile, btfConst, btfRestrict, btfFunc, btfTypeTag, btfVar:
			ref(refTo)
		case btfArray:
			ref(le.Uint32(parts))
			ref(le.Uint32(parts[4:]))
		case btfStruct, btfUnion:
			for ; len(parts) > 0; parts = parts[12:] {
				name(le.Uint32(parts))
				ref(le.Uint32(parts[4:]))
			}
		case btfDatasec:
			section, _ := c.stringAt(nameOff)
			c.elfData = c.elfData || refTo == 0 || string(section) == ".ksyms" || string(section) == ".kconfig"
			for ; len(parts) > 0; parts = parts[12:] {
				ref(le.Uint32(parts))
			}
		case btfFuncProto:
			for ; len(parts) > 0; parts = parts[8:] {
				name(le.Uint32(parts))
				ref(le.Uint32(parts[4:]))
			}
			ref(refTo)
		case btfEnum:
			for ; len(parts) > 0; parts = parts[8:] {
				name(le.Uint32(parts))
			}
		case btfEnum64:
			for ; len(parts) > 0; parts = parts[12:] {
				name(le.Uint32(parts))
			}
		case btfDeclTag:
			ref(refTo)
			c.tags = append(c.tags, uint32(len(c.kinds)), le.Uint32(parts))
		}
		if bad {
			return fmt.Errorf("BTF type %d: %w", c.firstID+len(c.kinds), ErrCorrupt)
		}
		c.add(kind, vlen, nameOff, refTo)
	}
	return nil
}

// stringAt returns the string at an offset, which must be where one begins.
func (x *btfIndex) stringAt(off uint32) ([]byte, bool) {
	s := x.strings
	if x.base != nil {
		n := uint32(len(x.base.strings))
		if off < n {
			return x.base.stringAt(off)
		}
		off -= n
	}
	if int(off) >= len(s) || off > 0 && s[off-1] != 0 {
		return nil, false
	}
	return cut0(s[off:]), true
}

// checkTags verifies that declaration tags are on what the kernel allows, and on
// members and parameters that exist.
func (c *btfChecker) checkTags() error {
	const whole = ^uint32(0)
	for tags := c.tags; len(tags) > 0; tags = tags[2:] {
		component, target := tags[1], int(c.refs[tags[0]])-c.firstID
		if target < 0 {
			continue // the library ignores a module's tag on a type of the kernel
		}
		ok := component == whole
		switch c.kinds[target] {
		case btfStruct, btfUnion:
			ok = ok || component < uint32(c.vlens[target])
		case btfFunc:
			kind, params := c.kindOf(int(c.refs[target]))
			ok = kind == btfFuncProto && (ok || component < uint32(params))
		case btfVar, btfTypedef:
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("BTF type %d: declaration tag: %w", c.firstID+int(tags[0]), ErrCorrupt)
		}
	}
	return nil
}

func (x *btfIndex) kindOf(id int) (kind uint8, vlen uint16) {
	if id < x.firstID {
		return x.base.kindOf(id)
	}
	return x.kinds[id-x.firstID], x.vlens[id-x.firstID]
}

// measure finds a bound on the depth of the type graph from any type: the longest
// chain of strongly connected components, each counted as if all its types could
// follow one another (Tarjan's algorithm, without recursion).
func (c *btfChecker) measure() error {
	type frame struct{ node, edge uint32 }
	const done = ^uint32(0)
	var (
		index = make([]uint32, len(c.kinds)) // order of discovery from 1 on; done when its component is complete
		low   = make([]uint32, len(c.kinds)) // of a complete one: its depth
		calls []frame
		open  []uint32 // discovered, not yet in a component
		next  uint32
	)
	base := 0
	if c.base != nil {
		base = c.base.depth
	}
	visit := func(v uint32) {
		next++
		index[v], low[v] = next, next
		open = append(open, v)
		calls = append(calls, frame{v, c.starts[v]})
	}
	for root := range index {
		if index[root] != 0 {
			continue
		}
		visit(uint32(root))
		for len(calls) > 0 {
			f := &calls[len(calls)-1]
			v := f.node
			if f.edge < c.starts[v+1] {
				to := c.edges[f.edge]
				f.edge++
				if index[to] == 0 {
					visit(to)
				} else if index[to] != done {
					low[v] = min(low[v], index[to])
				}
				continue
			}
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				parent := calls[len(calls)-1].node
				low[parent] = min(low[parent], low[v])
			}
			if low[v] != index[v] {
				continue
			}
			first := len(open) - 1
			for open[first] != v {
				first--
			}
			component := open[first:]
			open = open[:first]
			depth := base
			for _, m := range component {
				for _, to := range c.edges[c.starts[m]:c.starts[m+1]] {
					if index[to] == done {
						depth = max(depth, int(low[to]))
					}
				}
			}
			depth += len(component)
			if depth > maxBTFDepth {
				return fmt.Errorf("BTF types nest more than %d deep: %w", maxBTFDepth, ErrCorrupt)
			}
			for _, m := range component {
				index[m], low[m] = done, uint32(depth)
			}
			c.depth = max(c.depth, depth)
		}
	}
	return nil
}

// find returns the types of a name whose kind is among the given ones, by id.
func (x *btfIndex) find(name string, kinds ...uint8) []btf.TypeID {
	if name == "" || len(name) > maxNameLen {
		return nil
	}
	var found []btf.TypeID
	for s := x; s != nil; s = s.base {
		off, ok := s.offsetOf(name)
		if !ok {
			continue
		}
		for i, have := range x.names {
			if have == off && slices.Contains(kinds, x.kinds[i]) {
				found = append(found, btf.TypeID(x.firstID+i))
			}
		}
	}
	return found
}

// offsetOf returns where a string of this section is in the joint one.
func (x *btfIndex) offsetOf(s string) (uint32, bool) {
	at := 0
	if key := append([]byte(s), 0); !bytes.HasPrefix(x.strings, key) {
		i := bytes.Index(x.strings, append([]byte{0}, key...))
		if i < 0 {
			return 0, false
		}
		at = i + 1
	}
	if x.base != nil {
		at += len(x.base.strings)
	}
	return uint32(at), true
}
