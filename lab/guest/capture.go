//go:build linux

package guest

import (
	"archive/zip"
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"inquest/lab/guest/wire"
)

// capture writes /proc/vmcore in every way asked for to a disk. The disk is a zip
// archive of stored files: what can be streamed and needs no file system. How long
// it is, event Done says.
func capture(device string, saves []string) error {
	disk, err := waitFor(device)
	if err != nil {
		return err
	}
	defer disk.Close()
	buffered := bufio.NewWriterSize(disk, 1<<20)
	counted := &counter{w: buffered}
	archive := zip.NewWriter(counted)
	for _, s := range saves {
		name, arguments, filtered := strings.Cut(s, ":")
		file, err := archive.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			return err
		}
		if filtered {
			err = makedumpfile(file, strings.Split(arguments, ","))
		} else {
			err = copyImage(file)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		report(wire.Event{Kind: wire.Saved, Name: name})
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if err := disk.Sync(); err != nil {
		return err
	}
	report(wire.Event{Kind: wire.Done, Bytes: counted.n})
	return nil
}

// makedumpfile streams a dump in its flattened format, which is the one that needs no seeking.
func makedumpfile(w io.Writer, arguments []string) error {
	const errorsOnly = "4"
	cmd := exec.Command("/bin/makedumpfile", slices.Concat([]string{"-F", "--message-level", errorsOnly}, arguments, []string{"/proc/vmcore"})...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	return cmd.Run()
}

// copyImage copies the ELF image of the dead kernel. Not by io.Copy, which would ask
// for splice(2): the file is not one of pages.
func copyImage(w io.Writer) error {
	f, err := os.Open("/proc/vmcore")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}

// waitFor opens a device that may still be coming up.
func waitFor(device string) (*os.File, error) {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		f, err := os.OpenFile(device, os.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil || time.Since(start) > 30*time.Second {
			return f, err
		}
	}
}

// counter counts what is written through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
