package explain

import (
	"strconv"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
)

// pointerMember is a member of a struct that is a pointer.
type pointerMember struct {
	offset uint64
	path   string
	target btf.Type // without names and qualifiers
	shared bool     // lies in a union: it may hold something else
}

// Bounds on what is looked at of one struct.
const (
	maxPointers = 512
	maxElements = 16   // of an array
	maxVisits   = 4096 // members, of members too: hostile types branch without end
	maxDepth    = 16
)

// pointerMembers returns the pointers in a struct, those in members of members too.
func pointerMembers(typ btf.Type) []pointerMember {
	var all []pointerMember
	visits := 0
	var walk func(typ btf.Type, at uint64, path string, shared bool, depth int)
	walk = func(typ btf.Type, at uint64, path string, shared bool, depth int) {
		if visits++; visits > maxVisits || depth > maxDepth || len(all) >= maxPointers {
			return
		}
		switch t := btf.UnderlyingType(typ).(type) {
		case *btf.Pointer:
			all = append(all, pointerMember{at, path, btf.UnderlyingType(t.Target), shared})
		case *btf.Array:
			size, err := btf.Sizeof(t.Type)
			if err != nil || size <= 0 {
				return
			}
			for i := range min(uint64(t.Nelems), maxElements) {
				walk(t.Type, at+i*uint64(size), path+"["+strconv.FormatUint(i, 10)+"]", shared, depth+1)
			}
		case *btf.Struct, *btf.Union:
			_, union := t.(*btf.Union)
			for _, m := range kernel.Members(t) {
				if m.BitfieldSize == 0 {
					walk(m.Type, at+uint64(m.Offset/8), joinPath(path, m.Name), shared || union, depth+1)
				}
			}
		}
	}
	walk(typ, 0, "", false, 0)
	return all
}

func joinPath(path, name string) string {
	switch {
	case path == "":
		return name
	case name == "":
		return path
	case name[0] == '[':
		return path + name
	}
	return path + "." + name
}

// contains reports whether a struct of some name and size lies right at an offset in a
// type, in any member of a union.
func contains(typ btf.Type, offset uint64, want *btf.Struct) bool {
	_, ok := memberOfType(typ, offset, want)
	return ok
}

// memberOfType returns the path of the member of a struct type right at an offset; ""
// for the type itself.
func memberOfType(typ btf.Type, offset uint64, want *btf.Struct) (path string, ok bool) {
	visits := 0
	var find func(typ btf.Type, offset uint64, depth int) (string, bool)
	find = func(typ btf.Type, offset uint64, depth int) (string, bool) {
		if visits++; visits > maxVisits || depth > maxDepth {
			return "", false
		}
		switch t := btf.UnderlyingType(typ).(type) {
		case *btf.Array:
			size, err := btf.Sizeof(t.Type)
			if err != nil || size <= 0 || offset >= uint64(size)*uint64(t.Nelems) {
				return "", false
			}
			path, ok := find(t.Type, offset%uint64(size), depth+1)
			return joinPath("["+strconv.FormatUint(offset/uint64(size), 10)+"]", path), ok
		case *btf.Struct:
			if offset == 0 && t.Name == want.Name && t.Size == want.Size {
				return "", true
			}
		}
		for _, m := range kernel.Members(typ) {
			at := uint64(m.Offset / 8)
			size, err := btf.Sizeof(m.Type)
			if err != nil || offset < at || offset >= at+uint64(size) {
				continue
			}
			if inner, ok := find(m.Type, offset-at, depth+1); ok {
				return joinPath(m.Name, inner), true
			}
		}
		return "", false
	}
	return find(typ, offset, 0)
}
