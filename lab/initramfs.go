package lab

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"inquest/lab/guest/wire"
)

// Initramfs is a guest's file system: one program, the modules it loads and
// what else the scenario needs.
type Initramfs struct {
	Guest   []byte            // the program that is init: package guest
	Modules []Module          // in load order
	Files   map[string][]byte // further ones, by path; all are executable
}

// Write writes the archive as the kernel takes it. It is not compressed: under TCG,
// unpacking costs more than reading.
func (i *Initramfs) Write(w io.Writer) error {
	a := NewArchive(w)
	for _, dir := range []string{"dev", "proc", "sys", "tmp"} {
		a.Dir(dir)
	}
	a.File("init", 0o755, i.Guest)
	for _, name := range wire.Processes {
		a.Link("bin/"+name, "/init")
	}
	var order strings.Builder
	for _, m := range i.Modules {
		path := "modules/" + m.Name + ".ko"
		a.File(path, 0o644, m.Code)
		fmt.Fprintf(&order, "/%s\n", path)
	}
	a.File("modules/order", 0o644, []byte(order.String()))
	for _, path := range slices.Sorted(maps.Keys(i.Files)) {
		a.File(path, 0o755, i.Files[path])
	}
	return a.Close()
}

// Add adds a file of the host.
func (i *Initramfs) Add(path, hostPath string) error {
	data, err := os.ReadFile(hostPath)
	if err != nil {
		return err
	}
	if i.Files == nil {
		i.Files = make(map[string][]byte)
	}
	i.Files[path] = data
	return nil
}

// AddProgram adds a program of the host as /bin/NAME, with the shared libraries that
// it needs.
func (i *Initramfs) AddProgram(name string) error {
	path, err := findTool(name)
	if err != nil {
		return err
	}
	if err := i.Add("bin/"+name, path); err != nil {
		return err
	}
	needed, err := libraries(path, libraryDirs)
	if err != nil {
		return err
	}
	return i.addLibraries(needed)
}

func (i *Initramfs) addLibraries(needed []string) error {
	for _, library := range needed {
		if err := i.Add(library, library); err != nil {
			return err
		}
	}
	return nil
}
