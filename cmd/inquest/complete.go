package main

import (
	"io"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
)

// maxWords bounds what a shell is offered.
const maxWords = 200

// words opens the dump for its completions of a word. What goes wrong on the way
// is nothing to tell somebody who is typing.
func (c *command) words(paths []string, word string) []string {
	s := newSession(c, stdio{io.Discard, io.Discard}, options{}, paths)
	defer s.close()
	k, err := s.Kernel()
	if err != nil {
		return nil
	}
	return c.complete(k, word)
}

func completeSymbol(k *kernel.Kernel, word string) []string {
	var words []string
	for name := range symbolNames(k) {
		if strings.HasPrefix(name, word) {
			if words = append(words, name); len(words) == maxWords {
				break
			}
		}
	}
	return words
}

// completeType completes a type, or a member behind its dot.
func completeType(k *kernel.Kernel, word string) []string {
	types, err := k.Types()
	if err != nil {
		return nil
	}
	var words []string
	add := func(name string) bool {
		if strings.HasPrefix(name, word) {
			words = append(words, name)
		}
		return len(words) < maxWords
	}
	name, _, inside := strings.Cut(word, ".")
	if !inside {
		for typ, err := range types.Spec("").All() {
			if err != nil {
				break
			}
			if isNamed(typ) && !add(typ.TypeName()) {
				break
			}
		}
		return words
	}
	typ, err := types.Named(name)
	if err != nil {
		return nil
	}
	prefix := word[:strings.LastIndexAny(word, ".,")+1]
	for _, member := range memberNames(kernel.Fields(typ)) {
		add(prefix + member)
	}
	return words
}

// isNamed reports whether a type is one that struct shows.
func isNamed(typ btf.Type) bool {
	switch typ.(type) {
	case *btf.Struct, *btf.Union, *btf.Enum, *btf.Typedef:
		return typ.TypeName() != ""
	}
	return false
}

// memberNames returns the names of members, those of anonymous ones among them.
func memberNames(list []kernel.Field) []string {
	var names []string
	for _, f := range list {
		if f.Name != "" {
			names = append(names, f.Name)
			continue
		}
		names = append(names, memberNames(f.Fields)...)
	}
	return names
}

func completeModule(k *kernel.Kernel, word string) []string {
	var words []string
	mods, _ := k.Modules()
	for _, m := range mods {
		if strings.HasPrefix(m.Name, word) {
			words = append(words, m.Name)
		}
	}
	return words
}

// completeTask completes a pid, with the name of the task beside it.
func completeTask(k *kernel.Kernel, word string) []string {
	var words []string
	tasks, _ := k.Tasks()
	for _, t := range tasks {
		if pid := strconv.Itoa(t.PID); strings.HasPrefix(pid, word) && !t.Idle && len(words) < maxWords {
			words = append(words, pid+"\t"+clean(t.Comm))
		}
	}
	return words
}
