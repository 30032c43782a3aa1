package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"inquest/vmcore"
)

// machineDir is where an experiment's directory holds what the machine is made of,
// while it runs.
const machineDir = "machine"

// workspace makes an experiment's directory, and takes it and the kernel into use. What
// a run that was killed has left is removed.
func (e *Experiment) workspace(ctx context.Context) (work string, leave func(), err error) {
	if err := os.MkdirAll(e.Dir, 0o755); err != nil {
		return "", nil, err
	}
	unlock, err := tryLock(e.Dir)
	if err != nil {
		return "", nil, err
	}
	release := func() {}
	if e.Kernel.Root != "" {
		if release, err = shareLock(ctx, e.Kernel.Root); err != nil {
			unlock()
			return "", nil, err
		}
	}
	work = filepath.Join(e.Dir, machineDir)
	leave = func() {
		if !e.Keep {
			os.RemoveAll(work)
		}
		release()
		unlock()
	}
	if err := os.RemoveAll(work); err != nil {
		leave()
		return "", nil, err
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		leave()
		return "", nil, err
	}
	return work, leave, nil
}

// machine prepares all that the virtual machine is made of, in the directory work.
func (e *Experiment) machine(ctx context.Context, work string) (*Machine, error) {
	e.Progress("pack the guest")
	program := e.Guest
	if program == "" {
		program = filepath.Join(work, "guest")
		if err := BuildGuest(ctx, program); err != nil {
			return nil, err
		}
	}
	guest, err := newGuest(program)
	if err != nil {
		return nil, err
	}
	image, err := guest.image()
	if err != nil {
		return nil, err
	}
	modules, err := e.modules()
	if err != nil {
		return nil, err
	}
	if image.Modules, err = e.Kernel.LoadOrder(ctx, modules...); err != nil {
		return nil, err
	}
	for name, path := range e.Programs {
		if err := image.Add("bin/"+name, path); err != nil {
			return nil, err
		}
	}
	if e.Scenario.Prepare != nil {
		if err := e.Scenario.Prepare(ctx, e, image); err != nil {
			return nil, err
		}
	}
	m := &Machine{
		CPUs: e.CPUs, MemoryMiB: e.MemoryMiB, VMCoreInfo: !e.NoVMCoreInfo,
		Kernel: e.Kernel.Image, Append: e.commandLine(),
		Initrd:  filepath.Join(work, "initrd"),
		Console: filepath.Join(e.Dir, "console.log"),
		Report:  filepath.Join(e.Dir, "report.jsonl"),
	}
	if len(e.Kdump) > 0 {
		if err := e.addCapture(ctx, guest, image); err != nil {
			return nil, err
		}
		// A dump is never longer than memory and a bit. The file has holes.
		m.Disk = filepath.Join(work, "disk")
		size := int64(len(e.Kdump)) * int64(e.MemoryMiB+64) << 20
		if err := os.WriteFile(m.Disk, nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Truncate(m.Disk, size); err != nil {
			return nil, err
		}
	}
	return m, writeImage(m.Initrd, image)
}

// addCapture puts the capture kernel and its own initramfs into the guest's.
func (e *Experiment) addCapture(ctx context.Context, guest *guestProgram, image *Initramfs) error {
	capture, err := guest.image()
	if err != nil {
		return err
	}
	if capture.Modules, err = e.Kernel.LoadOrder(ctx, captureModules...); err != nil {
		return err
	}
	for _, save := range e.Kdump {
		if len(save.Arguments) > 0 {
			if err := capture.AddProgram("makedumpfile"); err != nil {
				return err
			}
			break
		}
	}
	var archive bytes.Buffer
	if err := capture.Write(&archive); err != nil {
		return err
	}
	if err := image.Add("boot/vmlinuz", e.Kernel.Image); err != nil {
		return err
	}
	image.Files["boot/initrd"] = archive.Bytes()
	return nil
}

func writeImage(path string, image *Initramfs) error {
	var archive bytes.Buffer
	if err := image.Write(&archive); err != nil {
		return err
	}
	return os.WriteFile(path, archive.Bytes(), 0o600)
}

// script is a program of the shell that boots the machine once more, with its console
// on the terminal.
func (m *Machine) script() string {
	var words []string
	args := m.Args()
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-serial" && args[i+1] == "chardev:report":
			words = append(words, "-serial", "null")
			i++
		case arg == "-serial":
			words = append(words, "-serial", "mon:stdio")
			i++
		case arg == "-chardev" || arg == "-mon": // of this process
			i++
		default:
			words = append(words, arg)
		}
	}
	for i, word := range words {
		words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return "#!/bin/sh\n# Boots the machine again; Ctrl-a x ends it.\nexec qemu-system-x86_64 " + strings.Join(words, " ") + "\n"
}

// keepScript writes the script beside what it boots.
func (m *Machine) keepScript(work string) error {
	abs := *m
	for _, path := range []*string{&abs.Kernel, &abs.Initrd, &abs.Disk} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(work, "boot.sh"), []byte(abs.script()), 0o755)
}

// vmcoreinfoFile is where an experiment's directory holds the VMCOREINFO of its dump.
const vmcoreinfoFile = "vmcoreinfo"

// keepVMCoreInfo writes a dump's VMCOREINFO to a file beside it.
func keepVMCoreInfo(dump, path string) error {
	d, err := vmcore.Open(dump)
	if err != nil {
		return fmt.Errorf("read the dump: %w", err)
	}
	defer d.Close()
	info, err := d.VMCoreInfo()
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(info.Raw), 0o644)
}
