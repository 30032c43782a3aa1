package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

var le = binary.LittleEndian

// maxModuleBTF bounds the BTF of all modules together; what comes after is left out.
const maxModuleBTF = 128 << 20

// Types is the BTF of the kernel and, split from it, of its modules
// (Documentation/bpf/btf.rst). The kernel has its own since 5.2, modules since 5.11.
type Types struct {
	k       *Kernel
	base    *typeSet
	modules func() []moduleTypes // by the list btf_modules

	mu     sync.Mutex // held to resolve a type; the library writes to base's maps for a module's types
	byName sync.Map   // C name, or module and C name -> namedType
}

// typeSet is one BTF section.
type typeSet struct {
	spec  *btf.Spec
	index *btfIndex
}

// moduleTypes is a module's BTF, read when it is first needed.
type moduleTypes struct {
	name string
	load func() *typeSet // nil when there is none to be had
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
	t.modules = sync.OnceValue(t.listModules)
	return t, nil
}

// parseBTF parses BTF that may be hostile. The library trusts its input to be a
// file of the user's, so it is verified, at the same time.
func parseBTF(raw []byte, base *typeSet) (*typeSet, error) {
	var (
		set      typeSet
		checkErr error
		checked  = make(chan struct{})
	)
	var baseIndex *btfIndex
	var baseSpec *btf.Spec
	if base != nil {
		baseIndex, baseSpec = base.index, base.spec
	}
	if _, err := btfSize(raw); err != nil {
		return nil, err
	}
	go func() {
		defer close(checked)
		set.index, checkErr = checkBTF(raw, baseIndex)
	}()
	spec, err := loadSpec(raw, baseSpec, true)
	<-checked
	if checkErr != nil {
		return nil, checkErr
	}
	if set.index.elfData && base == nil {
		spec, err = loadSpec(raw, nil, false)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	set.spec = spec
	return &set, nil
}

// loadSpec has the library load BTF, the kernel's as if from an ELF file where told.
func loadSpec(raw []byte, base *btf.Spec, asELF bool) (spec *btf.Spec, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	switch {
	case base == nil && asELF:
		return btf.LoadSpecFromReader(btfELF(raw))
	case base == nil:
		return btf.LoadSpecFromReader(bytes.NewReader(raw))
	}
	return btf.LoadSplitSpecFromReader(bytes.NewReader(raw), base)
}

// rawBTF reads the kernel's BTF section, which begins at __start_BTF.
func (k *Kernel) rawBTF() ([]byte, error) {
	if start, err := k.Symbol("__start_BTF"); err == nil {
		return k.readBTF(start)
	}
	// Without KALLSYMS_ALL there are no data symbols: find the section itself.
	image := k.imageReader()
	for at, ok := image.find([]byte(btfMagic+"\x00"), k.rodata()); ok; at, ok = image.find([]byte(btfMagic+"\x00"), at+1) {
		if raw, err := k.readBTF(at); err == nil && len(raw) > pageSize {
			return raw, nil
		}
	}
	return nil, ErrNoBTF
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

// listModules finds the BTF of every module (list btf_modules, since 5.11).
func (t *Types) listModules() []moduleTypes {
	head, err := t.k.Symbol("btf_modules")
	if err != nil {
		return nil
	}
	nodes, err := t.k.Structs("btf_module", "list", head)
	if err != nil {
		return nil
	}
	var mods []moduleTypes
	left := maxModuleBTF
	for m, err := range nodes {
		if err != nil || len(mods) == maxModules {
			break
		}
		name, _ := m.String("module->name")
		data, err := m.Pointer("btf->data")
		if err != nil {
			continue
		}
		var h [24]byte
		if t.k.Read(h[:], data) != nil {
			continue
		}
		if n, err := btfSize(h[:]); err != nil || n > left {
			continue
		} else {
			left -= n
		}
		mods = append(mods, moduleTypes{name, sync.OnceValue(func() *typeSet {
			raw, err := t.k.readBTF(data)
			if err != nil {
				return nil
			}
			set, _ := parseBTF(raw, t.base)
			return set
		})})
	}
	return mods
}

// Types returns the type information of the dump. The error wraps ErrNoBTF when
// the kernel has none.
func (k *Kernel) Types() (*Types, error) { return k.types() }

// Spec returns a copy of the kernel's BTF, or a module's when module is not empty; nil
// when that module has none. It is the caller's own: its types are others than those that
// the methods of Types return, and nothing that is done with it is seen there.
func (t *Types) Spec(module string) *btf.Spec {
	s := t.set(module)
	if s == nil {
		return nil
	}
	// A module's types resolve the kernel's without the lock that the library copies
	// under, but with this one.
	t.mu.Lock()
	defer t.mu.Unlock()
	return s.spec.Copy()
}

func (t *Types) set(module string) *typeSet {
	if module == "" {
		return t.base
	}
	for _, m := range t.modules() {
		if m.name == module {
			return m.load()
		}
	}
	return nil
}

// All iterates over the types of the kernel or of a module, by id. It resolves
// them all, which takes a fifth of a second for a kernel's.
func (t *Types) All(module string) iter.Seq[btf.Type] {
	return func(yield func(btf.Type) bool) {
		s := t.set(module)
		if s == nil {
			return
		}
		for i, kind := range s.index.kinds {
			if kind == 0 || kind == btfDeclTag {
				continue
			}
			typ, err := t.resolve(s, btf.TypeID(s.index.firstID+i))
			if err == nil && !yield(typ) {
				return
			}
		}
	}
}

// Named returns the type of a C name: "struct task_struct", "union x", "enum x",
// or a bare name, which is a struct, union, enum, typedef or basic type, in that
// order; in the kernel, then in its modules. The error wraps ErrNoType.
func (t *Types) Named(name string) (btf.Type, error) { return t.NamedFor(name, "") }

// NamedFor returns the type that a C name means to the code of a module, see
// [Types.Named]: the module's own, else that of the kernel, else that of any module.
// Modules have types of the same names as each other and the kernel. An empty module is
// the kernel.
func (t *Types) NamedFor(name, module string) (btf.Type, error) {
	typ, _, err := t.Find(name, module)
	return typ, err
}

// Find is [Types.NamedFor] that also says whose type it is: the module that has it, "" for
// the kernel.
func (t *Types) Find(name, module string) (typ btf.Type, home string, err error) {
	var key any = name
	if module != "" {
		key = [2]string{module, name}
	}
	found, ok := t.byName.Load(key)
	if !ok {
		found = t.find(name, module)
		t.byName.Store(key, found)
	}
	if n := found.(namedType); n.typ != nil {
		return n.typ, n.home, nil
	}
	return nil, "", fmt.Errorf("%s: %w", name, ErrNoType)
}

// namedType is a type, and the module whose BTF has it.
type namedType struct {
	typ  btf.Type
	home string
}

func (t *Types) find(name, module string) namedType {
	if module != "" {
		if s := t.set(module); s != nil {
			if typ := t.namedIn(s, name); typ != nil {
				return namedType{typ, module}
			}
		}
	}
	if typ := t.namedIn(t.base, name); typ != nil {
		return namedType{typ, ""}
	}
	// What the module list itself is made of can only be in the kernel.
	if name == "btf_module" || name == "list_head" {
		return namedType{}
	}
	for _, m := range t.modules() {
		if s := m.load(); s != nil {
			if typ := t.namedIn(s, name); typ != nil {
				return namedType{typ, m.name}
			}
		}
	}
	return namedType{}
}

// namedIn returns the type that a C name means in one BTF section, nil when none.
func (t *Types) namedIn(s *typeSet, name string) btf.Type {
	kinds := []uint8{btfStruct, btfUnion, btfEnum, btfEnum64, btfTypedef, btfInt, btfFloat}
	tag, bare, _ := strings.Cut(name, " ")
	switch tag {
	case "struct":
		kinds, name = kinds[:1], bare
	case "union":
		kinds, name = kinds[1:2], bare
	case "enum":
		kinds, name = kinds[2:4], bare
	}
	for _, id := range s.index.find(name, kinds...) {
		if typ, err := t.resolve(s, id); err == nil {
			return typ
		}
	}
	return nil
}

// resolve is TypeByID for input that may be hostile.
func (t *Types) resolve(s *typeSet, id btf.TypeID) (typ btf.Type, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("BTF type %d: %v: %w", id, p, ErrCorrupt)
		}
	}()
	return s.spec.TypeByID(id)
}

// Func returns the prototype of a function, from the kernel's BTF or from that of
// the module it lives in. A function that is not in BTF wraps ErrNoType.
func (t *Types) Func(name, module string) (*btf.FuncProto, error) {
	s := t.set(module)
	if s == nil {
		return nil, fmt.Errorf("%s in %s: %w", name, module, ErrNoType)
	}
	for _, id := range s.index.find(name, btfFunc) {
		typ, err := t.resolve(s, id)
		if err != nil {
			continue
		}
		if f, ok := typ.(*btf.Func); ok {
			if proto, ok := f.Type.(*btf.FuncProto); ok {
				return proto, nil
			}
		}
	}
	return nil, fmt.Errorf("%s(): %w", name, ErrNoType)
}
