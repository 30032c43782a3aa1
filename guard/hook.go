package guard

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ModuleName is the kernel module's, as lsmod has it.
const ModuleName = "inquest_guard"

//go:embed kmod/Kbuild kmod/Makefile kmod/dkms.conf kmod/inquest_guard.c
var kmod embed.FS

// Module is the source of the kernel module: its Kbuild, Makefile, dkms.conf and C. It is
// under the GPL, version 2.
func Module() fs.FS {
	sub, err := fs.Sub(kmod, "kmod")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}

// Hook is the kernel module in force, and what it saved.
type Hook struct {
	Version string `json:"version"`
	// References on sockets that are none of the full ones, which packets in queues held,
	// and which were given back the right way.
	RequestSocks  int64 `json:"request_socks"`
	TimewaitSocks int64 `json:"timewait_socks"`
	// LastReferences are those of them after which the socket was freed: what the kernel
	// would have freed as what it is not.
	LastReferences int64 `json:"last_references"`
}

// Errors of the hook.
var (
	// ErrNoHook is the error for a kernel in which the module is not loaded.
	ErrNoHook = errors.New("the hook is not loaded")
	// ErrHooked is the error for loading the module twice.
	ErrHooked = errors.New("the hook is loaded already")
	// ErrNothingToHook is the module's error for a kernel that does it the right way, by
	// its own code or by another shield.
	ErrNothingToHook = errors.New("the kernel gives request sockets back the right way: there is nothing to hook")
	// ErrUnknownKernel is the module's error for a kernel whose structures or functions
	// are not what its headers say.
	ErrUnknownKernel = errors.New("the kernel does not do what its headers promise, so the module does not touch it")
	// ErrNotHooked is the module's error for a function that ftrace does not lead to it.
	ErrNotHooked = errors.New("nf_reinject cannot be hooked: a live patch has it, or kernel.ftrace_enabled is 0")
)

// sysModule is where the kernel shows the module.
const sysModule = "/sys/module/" + ModuleName

// ReadHook says what the module has saved since it was loaded.
func ReadHook() (Hook, error) { return readHook(sysModule) }

func readHook(dir string) (Hook, error) {
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	if errors.Is(err, fs.ErrNotExist) {
		return Hook{}, ErrNoHook
	}
	if err != nil {
		return Hook{}, err
	}
	h := Hook{Version: strings.TrimSpace(string(version))}
	for name, to := range map[string]*int64{
		"request_socks": &h.RequestSocks, "timewait_socks": &h.TimewaitSocks, "last_references": &h.LastReferences,
	} {
		text, err := os.ReadFile(filepath.Join(dir, "parameters", name))
		if err != nil {
			return h, err
		}
		if *to, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err != nil {
			return h, fmt.Errorf("%s: %w", name, err)
		}
	}
	return h, nil
}

// Load loads the module from a file that [Build] has made. The module tries the kernel
// before it hooks anything, and again afterwards; its refusals are errors of this package.
func Load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", path, loadError(err))
	}
	return nil
}

// loadError says what the module, or the kernel's loader, means by an errno.
func loadError(err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return ErrHooked
	case errors.Is(err, unix.ENODEV):
		return ErrNothingToHook
	case errors.Is(err, unix.EOPNOTSUPP):
		return ErrUnknownKernel
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EIO):
		return fmt.Errorf("%w (%w)", ErrNotHooked, err)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("it was built for another kernel: %w", err)
	case errors.Is(err, unix.EKEYREJECTED):
		return fmt.Errorf("this kernel loads signed modules only, and knows no key of this one's (Secure Boot: enrol one with mokutil): %w", err)
	}
	return explained(err)
}

// Unload takes the module away, under whatever traffic there is.
func Unload() error {
	if _, err := os.Stat(sysModule); errors.Is(err, fs.ErrNotExist) {
		return ErrNoHook
	}
	if err := unix.DeleteModule(ModuleName, unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("unload %s: %w", ModuleName, explained(err))
	}
	return nil
}
