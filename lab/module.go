package lab

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Module is a kernel module, ready to be loaded.
type Module struct {
	Name string // as lsmod has it: with underscores
	Code []byte // the ELF file, decompressed
}

// LoadOrder returns modules and all that they depend on, dependencies first. Names
// of what is built into the kernel are left out; a name that the kernel does not know
// is an error, unless it has no modules at all: then everything has to be built in.
//
// The dependencies are read from the modules themselves: modules.dep comes into being
// only when a package is installed, by depmod.
func (k *Kernel) LoadOrder(ctx context.Context, names ...string) ([]Module, error) {
	if k.Modules == "" {
		return nil, nil
	}
	files, err := k.moduleFiles()
	if err != nil {
		return nil, err
	}
	builtin, err := k.builtinModules()
	if err != nil {
		return nil, err
	}
	var order []Module
	visited := make(map[string]bool)
	var visit func(name, neededBy string) error
	visit = func(name, neededBy string) error {
		name = moduleName(name)
		if visited[name] || builtin[name] {
			return nil
		}
		visited[name] = true
		path, ok := files[name]
		if !ok {
			return fmt.Errorf("kernel %s has no module %s%s", k.Release, name, neededBy)
		}
		code, err := readModule(ctx, path)
		if err != nil {
			return fmt.Errorf("read module %s: %w", name, err)
		}
		depends, err := moduleDepends(code)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, d := range depends {
			if err := visit(d, ", which "+name+" depends on"); err != nil {
				return err
			}
		}
		order = append(order, Module{name, code})
		return nil
	}
	for _, name := range names {
		if err := visit(name, ""); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// has reports whether the kernel has a module, built in or not.
func (k *Kernel) has(name string) (bool, error) {
	files, err := k.moduleFiles()
	if err != nil {
		return false, err
	}
	builtin, err := k.builtinModules()
	return files[name] != "" || builtin[name], err
}

// moduleFiles finds the file of each module.
func (k *Kernel) moduleFiles() (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(k.Modules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && isModule(path) {
			files[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the modules of %s: %w", k.Release, err)
	}
	return files, nil
}

// builtinModules are those that modules.builtin lists, by path.
func (k *Kernel) builtinModules() (map[string]bool, error) {
	text, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names := make(map[string]bool)
	for path := range strings.FieldsSeq(string(text)) {
		names[moduleName(path)] = true
	}
	return names, nil
}

// isModule reports whether a file is a module, compressed or not.
func isModule(path string) bool {
	base := filepath.Base(path)
	return strings.HasSuffix(base, ".ko") || strings.Contains(base, ".ko.")
}

// moduleName is the name of a module by its path. To the kernel, dashes in it are
// underscores.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// maxModule bounds the size of a decompressed module; the largest drivers have some 20 MiB.
const maxModule = 256 << 20

// readModule reads a module and decompresses it, so that every kernel and a guest
// without any tools can load it.
func readModule(ctx context.Context, path string) ([]byte, error) {
	switch filepath.Ext(path) {
	case ".xz":
		return runTool(ctx, "", nil, "xz", "--decompress", "--stdout", path)
	case ".zst":
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxModule))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return d.DecodeAll(text, nil)
	case ".gz":
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		return readAtMost(z, maxModule)
	}
	return os.ReadFile(path)
}

// moduleDepends returns what the "depends=a,b" in a module's .modinfo section names.
func moduleDepends(code []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if names, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(names) > 0 {
			return strings.Split(string(names), ","), nil
		}
	}
	return nil, nil
}
