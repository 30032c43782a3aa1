package kernel

import (
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Place is what lies at an offset in a type.
type Place struct {
	Path string   // of members, as C writes it: "sk_callback_lock.wait_lock"; "" for the type itself
	Type btf.Type // of that member
	Rest uint64   // bytes into it
}

// PlaceAt returns the innermost member of a type that an offset, in bytes, falls
// into. Of a union it takes the first member that reaches so far, but one of which a
// member begins right there goes first. ok is false for an offset past the end, and
// for one in a hole.
func PlaceAt(typ btf.Type, offset uint64) (place Place, ok bool) {
	size, err := btf.Sizeof(typ)
	if err != nil || size < 0 || offset >= uint64(size) {
		return Place{}, false
	}
	return placeAt(typ, offset, 0)
}

func placeAt(typ btf.Type, offset uint64, depth int) (Place, bool) {
	here := Place{Type: typ, Rest: offset}
	if depth > 32 {
		return here, true
	}
	if array, ok := btf.UnderlyingType(typ).(*btf.Array); ok {
		size, err := btf.Sizeof(array.Type)
		if err != nil || size <= 0 {
			return here, true
		}
		in, ok := placeAt(array.Type, offset%uint64(size), depth+1)
		in.Path = join("["+strconv.FormatUint(offset/uint64(size), 10)+"]", in.Path)
		return in, ok
	}
	members := Members(typ)
	if members == nil {
		return here, true
	}
	var best Place
	found := false
	for _, m := range members {
		at := uint64(m.Offset / 8)
		size, err := btf.Sizeof(m.Type)
		if err != nil || offset < at || offset >= at+uint64(size) {
			continue
		}
		in, ok := placeAt(m.Type, offset-at, depth+1)
		if !ok || found && !(in.Rest == 0 && best.Rest != 0) {
			continue
		}
		in.Path = join(m.Name, in.Path)
		best, found = in, true
	}
	return best, found
}

// join puts a member in front of a path.
func join(name, path string) string {
	switch {
	case name == "":
		return path
	case path == "" || strings.HasPrefix(path, "["):
		return name + path
	}
	return name + "." + path
}

// FirstMembers returns the names of the structs that a struct begins with: its own,
// that of its first member, that one's first member's, and so on.
func FirstMembers(typ btf.Type) []string {
	var names []string
	for range 16 {
		s, ok := btf.UnderlyingType(typ).(*btf.Struct)
		if !ok || len(s.Members) == 0 {
			break
		}
		if s.Name != "" {
			names = append(names, s.Name)
		}
		typ = s.Members[0].Type
	}
	return names
}

// StructsOfSize returns the names of all structs of a size, in bytes, in the kernel
// and in a module's BTF ("" for none).
func (t *Types) StructsOfSize(size uint64, module string) []string {
	var names []string
	seen := map[string]bool{}
	for _, m := range []string{"", module} {
		s := t.set(m)
		if s == nil {
			continue
		}
		x := s.index
		for i, kind := range x.kinds {
			if kind != btfStruct || uint64(x.refs[i]) != size {
				continue
			}
			if name, ok := x.stringAt(x.names[i]); ok && len(name) > 0 && !seen[string(name)] {
				seen[string(name)] = true
				names = append(names, string(name))
			}
		}
		if module == "" {
			break
		}
	}
	return names
}
