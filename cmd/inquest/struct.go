package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
	"github.com/spf13/pflag"

	"inquest/kernel"
)

var structCommand = &command{
	name:    "struct",
	aliases: []string{"union", "enum", "typedef"},
	args:    "TYPE[.MEMBER[,MEMBER]...] [ADDRESS [COUNT]]",
	min:     1,
	max:     4,
	short:   "show a type's definition, or an object in memory",
	long: `Show the definition of a struct, union, enum or typedef, with the offset of each
member in front, its size behind, and the holes between; or, with an address, the
contents of the object there, COUNT of them in a row as an array has them.

MEMBER limits it to some members. It is a path as C writes it, also into arrays and,
given in quotes, through pointers: cpus_mask.bits[0], 'mm->pgd'.

A symbol that lies in per-CPU data takes a CPU: runqueues:1.`,
	example: `inquest struct vmcore list_head
inquest struct vmcore tcp_request_sock -x
inquest struct vmcore 'task_struct.comm,pid,mm->pgd' ffff9d2b84c7a000
inquest struct vmcore sock.__sk_common -o ffff9d2b84c7a000
inquest struct vmcore task_struct ffff9d2b84c7a588 -l task_struct.tasks
inquest struct vmcore rq.curr runqueues:0`,
	complete: completeType,
	setup: func(f *pflag.FlagSet) runFunc {
		var p structPrinter
		f.BoolVarP(&p.style.Addrs, "offset", "o", false, "with an object, its members' addresses (definitions always have offsets)")
		f.BoolVarP(&p.style.Hex, "hex", "x", false, "print numbers in hexadecimal")
		decimal := f.BoolP("decimal", "d", false, "print numbers in decimal, the default")
		f.BoolVarP(&p.raw, "raw", "r", false, "dump the object's memory as words")
		f.StringVarP(&p.module, "module", "m", "", "the type that this `MODULE` means, where it and the kernel have one of the name")
		f.StringVarP(&p.inside, "list", "l", "", "the address is that of a `MEMBER` (struct.member, or an offset in bytes)")
		return func(s *session, args []string) error {
			if *decimal {
				p.style.Hex = false
			}
			p.s, p.style.Width = s, s.term.width
			switch args[0] {
			case "struct", "union", "enum", "typedef":
				if len(args) == 1 {
					return s.usagef("which %s?", args[0])
				}
				tag := strings.TrimPrefix(args[0], "typedef") + " "
				args = append([]string{strings.TrimSpace(tag + args[1])}, args[2:]...)
			}
			if len(args) > 3 {
				return s.usagef("%q is one argument too many", args[3])
			}
			return p.run(args)
		}
	},
}

// structPrinter is one run of the command.
type structPrinter struct {
	s       *session
	k       *kernel.Kernel
	style   kernel.Style
	raw     bool
	inside  string
	module  string   // whose type it is; "" for the kernel's, or else any module's
	members []string // paths; none means the whole type
}

func (p *structPrinter) run(args []string) error {
	var err error
	if p.k, err = p.s.typedKernel(); err != nil {
		return err
	}
	name, members, limited := strings.Cut(args[0], ".")
	if limited {
		p.members = strings.Split(members, ",")
	}
	types, err := p.k.Types()
	if err != nil {
		return fmt.Errorf("read the types: %w", err)
	}
	if m := p.module; m != "" && !p.hasModule(m) {
		return fmt.Errorf("%s: no such module is loaded", m)
	}
	typ, err := types.NamedFor(name, p.module)
	if err != nil {
		return typeError(p.k, name, err)
	}
	zero := p.k.ObjectOf(typ, 0)
	for _, m := range p.members {
		if strings.HasSuffix(m, "-") {
			return p.s.usagef("%s ends in a dash: put the argument in quotes, the shell took > for itself", m)
		}
		if !zero.Has(m) {
			_, err := zero.Member(m)
			return memberError(typ, m, err)
		}
	}
	if len(args) == 1 {
		return p.definition(typ)
	}
	at, err := parseAddr(p.k, args[1])
	if err != nil {
		return err
	}
	back, err := p.containerOffset(name)
	if err != nil {
		return err
	}
	count := 1
	if len(args) == 3 {
		if count, err = parseCount(args[2]); err != nil {
			return p.s.usagef("%v", err)
		}
	}
	return p.objects(p.k.ObjectOf(typ, at-back), count)
}

func (p *structPrinter) hasModule(name string) bool {
	mods, _ := p.k.Modules()
	return slices.ContainsFunc(mods, func(m *kernel.Module) bool { return m.Name == name })
}

// containerOffset is how far into the type -l says that the address lies.
func (p *structPrinter) containerOffset(name string) (kernel.Addr, error) {
	if p.inside == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(p.inside, 0, 32); err == nil {
		return kernel.Addr(n), nil
	}
	typ, member, ok := strings.Cut(p.inside, ".")
	if !ok {
		typ, member = name, p.inside
	}
	o, err := p.k.ObjectFor(typ, p.module, 0)
	if err != nil {
		return 0, err
	}
	m, err := o.Member(member)
	return m.Addr, err
}

// definition prints the type, or the members asked for.
func (p *structPrinter) definition(typ btf.Type) error {
	if p.s.json {
		return p.definitionJSON(typ)
	}
	if len(p.members) == 0 {
		p.s.printf("%s", cleanLines(kernel.FormatType(typ, p.style)))
		return nil
	}
	list, err := p.picked(typ)
	if err != nil {
		return err
	}
	p.s.printf("%s", cleanLines(kernel.FormatFields(typ, list, p.style)))
	return nil
}

// picked returns the members asked for as fields.
func (p *structPrinter) picked(typ btf.Type) ([]kernel.Field, error) {
	var list []kernel.Field
	for _, path := range p.members {
		if strings.Contains(path, "->") {
			return nil, p.s.usagef("%s leads through a pointer: its place is only known with an address", path)
		}
		m, err := p.k.ObjectOf(typ, 0).Member(path)
		if err != nil {
			return nil, memberError(typ, path, err)
		}
		size, _ := m.Size()
		f := kernel.Field{Name: path, Type: m.Type, Decl: kernel.Declare(m.Type, path), Offset: uint64(m.Addr), Size: size, Bits: m.Bits}
		if f.Bits.Size > 0 {
			f.Decl += fmt.Sprintf(" : %d", f.Bits.Size)
		}
		f.Fields = kernel.Fields(m.Type)
		list = append(list, f)
	}
	return list, nil
}

type typeJSON struct {
	Type    string       `json:"type"`
	Size    int          `json:"size"`
	Members []memberJSON `json:"members,omitempty"`
	Values  []valueJSON  `json:"values,omitempty"` // of an enum
}

type memberJSON struct {
	Name      string       `json:"name"`
	Type      string       `json:"type"`
	Offset    uint64       `json:"offset"`
	Size      uint64       `json:"size"`
	BitOffset uint32       `json:"bit_offset,omitempty"`
	BitSize   uint32       `json:"bit_size,omitempty"`
	Members   []memberJSON `json:"members,omitempty"` // of a type without a name
}

type valueJSON struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

func (p *structPrinter) definitionJSON(typ btf.Type) error {
	j := typeJSON{Type: kernel.Declare(typ, "")}
	if j.Size, _ = btf.Sizeof(typ); j.Size < 0 {
		j.Size = 0
	}
	fields := kernel.Fields(typ)
	if len(p.members) > 0 {
		var err error
		if fields, err = p.picked(typ); err != nil {
			return err
		}
	}
	j.Members = membersJSON(fields)
	if e, ok := btf.UnderlyingType(typ).(*btf.Enum); ok {
		for _, v := range e.Values {
			j.Values = append(j.Values, valueJSON{v.Name, int64(v.Value)})
		}
	}
	return p.s.writeJSON(j)
}

func membersJSON(fields []kernel.Field) []memberJSON {
	var list []memberJSON
	for _, f := range fields {
		list = append(list, memberJSON{f.Name, kernel.Declare(f.Type, ""), f.Offset, f.Size, f.Bits.Offset, f.Bits.Size, membersJSON(f.Fields)})
	}
	return list
}

type objectJSON struct {
	Type    string         `json:"type"`
	Address hex            `json:"address"`
	Value   *kernel.Value  `json:"value,omitempty"`
	Members map[string]any `json:"members,omitempty"` // those asked for, by path
	Error   string         `json:"error,omitempty"`
}

// objects prints count objects in a row.
func (p *structPrinter) objects(o kernel.Object, count int) error {
	size, err := o.Size()
	if err != nil {
		return err
	}
	read := 0
	var list []objectJSON
	var last error
	for range count {
		j := objectJSON{Type: kernel.Declare(o.Type, ""), Address: hex(o.Addr)}
		if err := p.object(o, &j); err != nil {
			last = fmt.Errorf("read %s at %v: %w", j.Type, o.Addr, err)
			j.Error = err.Error()
			p.s.miss(last)
		} else {
			read++
		}
		list = append(list, j)
		o.Addr += kernel.Addr(size)
	}
	if read == 0 {
		return last
	}
	if p.s.json {
		return p.s.writeJSON(struct {
			Objects []objectJSON `json:"objects"`
		}{list})
	}
	p.s.missing()
	return nil
}

// object prints one object, or fills in its JSON.
func (p *structPrinter) object(o kernel.Object, j *objectJSON) error {
	if p.raw {
		return p.rawObject(o)
	}
	if len(p.members) == 0 {
		v, err := o.Value()
		if err != nil {
			return err
		}
		if j.Value = &v; !p.s.json {
			p.s.printf("%s", cleanLines(v.Format(p.style)))
		}
		return nil
	}
	j.Members = map[string]any{}
	var failed []error
	for _, path := range p.members {
		m, err := o.Member(path)
		if err == nil {
			var v kernel.Value
			if v, err = m.Value(); err == nil {
				v.Name = path
				if j.Members[path] = v; !p.s.json {
					p.s.printf("%s", cleanLines(v.Format(p.style)))
				}
				continue
			}
		}
		failed = append(failed, fmt.Errorf("%s: %w", path, err))
		j.Members[path] = nil
	}
	if len(failed) == len(p.members) {
		return errors.Join(failed...)
	}
	for _, err := range failed {
		p.s.miss(fmt.Errorf("read %s at %v: %w", kernel.Declare(o.Type, ""), o.Addr, err))
	}
	return nil
}

// rawObject prints the object's memory as rd does.
func (p *structPrinter) rawObject(o kernel.Object) error {
	size, err := o.Size()
	if err != nil {
		return err
	}
	d := wordDump{s: p.s, k: p.k, size: 8, read: p.k.Read}
	return d.run(uint64(o.Addr), int(min(size+7, 1<<20)/8))
}
