package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

var le = binary.LittleEndian

const (
	maxBTF      = 64 << 20
	maxBTFTypes = 1 << 19 // cilium/ebpf resolves a type graph by recursion; this bounds it
	btfMagic    = "\x9f\xeb\x01"
)

// Types is the BTF of the kernel and, split from it, of its modules
// (Documentation/bpf/btf.rst).
type Types struct {
	k       *Kernel
	base    *btf.Spec
	modules func() map[string]*btf.Spec

	byName sync.Map // C name -> btf.Type, nil when there is none
}

func (k *Kernel) loadTypes() (*Types, error) {
	raw, err := k.rawBTF()
	if err != nil {
		return nil, err
	}
	base, err := parseBTF(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("BTF of the kernel: %w", err)
	}
	t := &Types{k: k, base: base}
	t.modules = sync.OnceValue(t.loadModules)
	return t, nil
}

// parseBTF parses BTF that may be hostile: sizes are checked here, since the
// library trusts its input to be a file of the user's.
func parseBTF(raw []byte, base *btf.Spec) (spec *btf.Spec, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v: %w", p, ErrCorrupt)
		}
	}()
	if err := checkBTF(raw); err != nil {
		return nil, err
	}
	if base == nil {
		return btf.LoadSpecFromReader(bytes.NewReader(raw))
	}
	return btf.LoadSplitSpecFromReader(bytes.NewReader(raw), base)
}

// rawBTF reads the kernel's BTF section, which __start_BTF and __stop_BTF bound.
func (k *Kernel) rawBTF() ([]byte, error) {
	start, err := k.Symbol("__start_BTF")
	if err != nil {
		// Without KALLSYMS_ALL there are no data symbols: find the section itself.
		var ok bool
		if start, ok = k.imageReader().find([]byte(btfMagic+"\x00\x18\x00\x00\x00\x00\x00\x00\x00"), k.rodata()); !ok {
			return nil, ErrNoBTF
		}
	}
	return k.readBTF(start)
}

// readBTF reads the BTF at an address: its header says how long it is.
func (k *Kernel) readBTF(start Addr) ([]byte, error) {
	var h [24]byte
	if err := k.Read(h[:], start); err != nil {
		return nil, fmt.Errorf("read BTF header: %w", err)
	}
	n, err := btfSize(h[:])
	if err != nil {
		return nil, err
	}
	raw := make([]byte, n)
	if err := k.readParallel(raw, start); err != nil {
		return nil, fmt.Errorf("read BTF: %w", err)
	}
	return raw, nil
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

// checkBTF counts the types.
func checkBTF(raw []byte) error {
	n, err := btfSize(raw)
	if err != nil {
		return err
	}
	if n > len(raw) {
		return fmt.Errorf("BTF ends at %d of %d: %w", len(raw), n, ErrCorrupt)
	}
	hdr, typeOff, typeLen := int(le.Uint32(raw[4:])), int(le.Uint32(raw[8:])), int(le.Uint32(raw[12:]))
	types := raw[hdr+typeOff:][:typeLen]
	count := 0
	for ; len(types) >= 12; count++ {
		if count > maxBTFTypes {
			return fmt.Errorf("BTF of more than %d types: %w", maxBTFTypes, ErrCorrupt)
		}
		info := le.Uint32(types[4:])
		vlen := int(info & 0xffff)
		size := 12
		switch info >> 24 & 0x1f {
		case 1, 14, 17: // INT, VAR, DECL_TAG
			size += 4
		case 3: // ARRAY
			size += 12
		case 4, 5, 15, 19: // STRUCT, UNION, DATASEC, ENUM64
			size += 12 * vlen
		case 6, 13: // ENUM, FUNC_PROTO
			size += 8 * vlen
		}
		types = types[min(size, len(types)):]
	}
	return nil
}

// loadModules reads the BTF of every module (list btf_modules, since 5.11).
func (t *Types) loadModules() map[string]*btf.Spec {
	specs := map[string]*btf.Spec{}
	head, err := t.k.Symbol("btf_modules")
	if err != nil {
		return specs
	}
	nodes, err := t.k.Structs("btf_module", "list", head)
	if err != nil {
		return specs
	}
	for m, err := range nodes {
		if err != nil {
			break
		}
		name, _ := m.String("module->name")
		data, err := m.Pointer("btf->data")
		if err != nil {
			continue
		}
		raw, err := t.k.readBTF(data)
		if err != nil {
			continue
		}
		if spec, err := parseBTF(raw, t.base); err == nil {
			specs[name] = spec
		}
	}
	return specs
}

// Types returns the type information of the dump.
func (k *Kernel) Types() (*Types, error) { return k.types() }

// Spec returns the kernel's BTF, or a module's when module is not empty; nil when
// that module has none.
func (t *Types) Spec(module string) *btf.Spec {
	if module == "" {
		return t.base
	}
	return t.modules()[module]
}

// Named returns the type of a C name: "struct task_struct", "union x", "enum x",
// or a bare name, which is a struct, union, enum or typedef, in that order; in the
// kernel, then in its modules. The error wraps ErrNoType.
func (t *Types) Named(name string) (btf.Type, error) {
	if typ, ok := t.byName.Load(name); ok {
		if typ == nil {
			return nil, fmt.Errorf("%s: %w", name, ErrNoType)
		}
		return typ.(btf.Type), nil
	}
	typ := namedIn(t.base, name)
	// What the module list itself is made of can only be in the kernel.
	if typ == nil && name != "btf_module" && name != "list_head" {
		for _, spec := range t.modules() {
			if typ = namedIn(spec, name); typ != nil {
				break
			}
		}
	}
	if typ == nil {
		t.byName.Store(name, nil)
		return nil, fmt.Errorf("%s: %w", name, ErrNoType)
	}
	t.byName.Store(name, typ)
	return typ, nil
}

// namedIn returns the type that a C name means in one spec, nil when none.
func namedIn(spec *btf.Spec, name string) btf.Type {
	tag, bare, tagged := strings.Cut(name, " ")
	if !tagged {
		tag, bare = "", name
	}
	types, err := anyTypes(spec, bare)
	if err != nil {
		return nil
	}
	var best btf.Type
	bestRank := len(kindRank)
	for _, typ := range types {
		rank, ok := kindRank[kindOf(typ)]
		if ok && rank < bestRank && (tag == "" || tag == kindOf(typ)) {
			best, bestRank = typ, rank
		}
	}
	return best
}

var kindRank = map[string]int{"struct": 0, "union": 1, "enum": 2, "typedef": 3, "int": 4}

func kindOf(t btf.Type) string {
	switch t.(type) {
	case *btf.Struct:
		return "struct"
	case *btf.Union:
		return "union"
	case *btf.Enum:
		return "enum"
	case *btf.Typedef:
		return "typedef"
	case *btf.Int:
		return "int"
	}
	return ""
}

// anyTypes is Spec.AnyTypesByName for input that may be hostile.
func anyTypes(spec *btf.Spec, name string) (types []btf.Type, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v: %w", p, ErrCorrupt)
		}
	}()
	return spec.AnyTypesByName(name)
}

// Func returns the prototype of a function, from the kernel's BTF or from that of
// the module it lives in. A function that is not in BTF wraps ErrNoType.
func (t *Types) Func(name, module string) (*btf.FuncProto, error) {
	spec := t.Spec(module)
	if spec == nil {
		return nil, fmt.Errorf("%s in %s: %w", name, module, ErrNoType)
	}
	types, _ := anyTypes(spec, name)
	for _, typ := range types {
		if f, ok := typ.(*btf.Func); ok {
			if proto, ok := f.Type.(*btf.FuncProto); ok {
				return proto, nil
			}
		}
	}
	return nil, fmt.Errorf("%s(): %w", name, ErrNoType)
}
