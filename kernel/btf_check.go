package kernel

import (
	"fmt"
	"slices"
	"sync"
)

// Limits on BTF. A distribution's kernel has 110,000 types in 5 MiB, an allmodconfig
// one about 300,000.
const (
	maxBTF      = 48 << 20
	maxBTFTypes = 1 << 19
	// maxBTFNames bounds the bytes of all names together, each counted as often as it
	// is used, and as if it were the longest. A kernel of 110,000 types has 60 MB.
	maxBTFNames = 512 << 20
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
	longest int  // string, base's too
	elfData bool // has a section that the library would complete from an ELF file

	byNameOnce sync.Once
	byName     nameTable
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
	c := newBTFChecker(section(8), section(16), base)
	for _, pass := range []func() error{c.measureStrings, c.walk, c.checkTags, c.measure} {
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
	named  int      // bytes of names so far, at most
	edges  []uint32 // all that each type refers to, by index in kinds
	starts []uint32 // where the edges of each type begin, and one more
	tags   []uint32 // the declaration tags: index in kinds, component
}

func newBTFChecker(types, strings []byte, base *btfIndex) *btfChecker {
	// A type with its parts takes some 25 bytes.
	n := min(len(types)/20, maxBTFTypes) + 1
	c := &btfChecker{
		types:  types,
		edges:  make([]uint32, 0, 2*n),
		starts: make([]uint32, 1, n),
	}
	c.kinds, c.vlens, c.names = make([]uint8, 0, n), make([]uint16, 0, n), make([]uint32, 0, n)
	c.refs = make([]uint32, 0, n)
	c.strings = strings
	if c.base = base; base != nil {
		c.firstID = base.firstID + len(base.kinds)
	} else {
		c.add(0, 0, 0, 0) // void
	}
	return c
}

// measureStrings finds the longest string.
func (c *btfChecker) measureStrings() error {
	if c.base != nil {
		c.longest = c.base.longest
	}
	for s := c.strings; len(s) > 0; {
		end := len(cut0(s))
		c.longest = max(c.longest, end)
		s = s[min(end+1, len(s)):]
	}
	if n := len(c.strings); n == 0 || c.strings[n-1] != 0 || c.longest > maxNameLen {
		return fmt.Errorf("BTF strings of %d bytes: %w", n, ErrCorrupt)
	}
	return nil
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
	first, last, bad := uint32(c.firstID), uint32(0), false
	ref := func(id uint32) {
		if id >= first && id > 0 {
			c.edges = append(c.edges, id-first)
			last = max(last, id)
		}
	}
	name := func(off uint32) {
		if off == 0 {
			return
		}
		bad = bad || !c.isString(off)
		c.named += c.longest
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
		if c.add(kind, vlen, nameOff, refTo); bad || c.firstID+len(c.kinds) > maxBTFTypes || c.named > maxBTFNames {
			return fmt.Errorf("BTF type %d: %w", c.firstID+len(c.kinds)-1, ErrCorrupt)
		}
	}
	if total := c.firstID + len(c.kinds); int(last) >= total {
		return fmt.Errorf("BTF refers to type %d of %d: %w", last, total, ErrCorrupt)
	}
	return nil
}

// isString reports whether a string begins at an offset.
func (x *btfIndex) isString(off uint32) bool {
	if x.base != nil {
		n := uint32(len(x.base.strings))
		if off < n {
			return x.base.isString(off)
		}
		off -= n
	}
	return int(off) < len(x.strings) && (off == 0 || x.strings[off-1] == 0)
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
	type frame struct{ node, edge, below uint32 } // below: the depth of what is complete
	const done = ^uint32(0)
	var (
		index = make([]uint32, len(c.kinds)) // order of discovery from 1 on; done when its component is complete
		low   = make([]uint32, len(c.kinds)) // of a complete one: its depth
		calls []frame
		open  []uint32 // discovered, not yet in a component
		next  uint32
		base  uint32
	)
	if c.base != nil {
		base = uint32(c.base.depth)
	}
	visit := func(v uint32) {
		next++
		index[v], low[v] = next, next
		open = append(open, v)
		calls = append(calls, frame{v, c.starts[v], base})
	}
	for root := range index {
		if index[root] != 0 {
			continue
		}
		visit(uint32(root))
	walk:
		for len(calls) > 0 {
			f := &calls[len(calls)-1]
			v, below := f.node, f.below
			for e, end := f.edge, c.starts[f.node+1]; e < end; e++ {
				switch to := c.edges[e]; index[to] {
				case 0:
					f.edge, f.below = e+1, below
					visit(to)
					continue walk
				case done:
					below = max(below, low[to])
				default:
					low[v] = min(low[v], index[to])
				}
			}
			calls = calls[:len(calls)-1]
			if low[v] == index[v] {
				first := len(open) - 1
				for open[first] != v {
					first--
				}
				depth := below + uint32(len(open)-first)
				if depth > maxBTFDepth {
					return fmt.Errorf("BTF types nest more than %d deep: %w", maxBTFDepth, ErrCorrupt)
				}
				for _, m := range open[first:] {
					index[m], low[m] = done, depth
				}
				open = open[:first]
				c.depth = max(c.depth, int(depth))
				below = depth
			} else {
				parent := calls[len(calls)-1].node
				low[parent] = min(low[parent], low[v])
			}
			if len(calls) > 0 {
				parent := &calls[len(calls)-1]
				parent.below = max(parent.below, below)
			}
		}
	}
	return nil
}
