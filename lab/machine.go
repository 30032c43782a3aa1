package lab

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
)

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
	guest, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	image := &Initramfs{Guest: guest}
	if image.Modules, err = e.Kernel.LoadOrder(ctx, e.modules()...); err != nil {
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
		if err := e.addCapture(ctx, image); err != nil {
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
	var archive bytes.Buffer
	if err := image.Write(&archive); err != nil {
		return nil, err
	}
	return m, os.WriteFile(m.Initrd, archive.Bytes(), 0o600)
}

// addCapture puts the capture kernel and its own initramfs into the guest's.
func (e *Experiment) addCapture(ctx context.Context, image *Initramfs) error {
	capture := &Initramfs{Guest: image.Guest}
	var err error
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
