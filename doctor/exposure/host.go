package exposure

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"inquest/advisory"
	"inquest/kernel"
	"inquest/kernel/image"
	"inquest/vmcore"
)

// Open prepares to ask the kernel of a machine whose files lie below root: "/", or a copy
// of some. It fails if they do not say which kernel runs, in /proc/version or
// /proc/sys/kernel/osrelease.
func Open(root string) (*Kernel, error) {
	h := &host{root: root, files: os.DirFS(root)}
	if root != "/" {
		// Links in a copy must not lead out of it.
		r, err := os.OpenRoot(root)
		if err != nil {
			return nil, err
		}
		h.files = r.FS()
	}
	id, err := ReadID(h.files)
	if err != nil {
		return nil, err
	}
	h.id = id
	return &Kernel{ID: id, sources: []*source{
		{sure: Code, open: h.memory},
		{sure: File, open: h.booted, add: h.addModule},
	}}, nil
}

// host is a machine's files.
type host struct {
	root  string
	files fs.FS
	id    ID
	image *image.Image // once it is open
}

// memory opens the code of the running kernel.
func (h *host) memory() (advisory.Code, string, error) {
	const name = "/proc/kcore"
	dump, err := vmcore.Open(filepath.Join(h.root, name))
	if err != nil {
		var path *fs.PathError // below another root, name what it stands for
		if errors.As(err, &path) {
			err = fmt.Errorf("%s: %w", name, path.Err)
		}
		return nil, name, fmt.Errorf("read the running kernel's memory: %w", err)
	}
	// Without it all memory would have to be searched. It is there since 4.19 (commit
	// 23c85094fe18).
	if !slices.ContainsFunc(dump.Notes, func(n vmcore.Note) bool { return n.Name == "VMCOREINFO" }) {
		dump.Close()
		return nil, name, fmt.Errorf("%s does not say where the kernel is", name)
	}
	k, err := kernel.Open(dump)
	if err == nil {
		_, err = k.Symbols()
	}
	if err != nil {
		dump.Close()
		return nil, name, fmt.Errorf("%s: %w", name, err)
	}
	return CodeOf{k, livepatched(h.files)}, name, nil
}

// livepatched returns the functions that livepatches in force replace, and the modules
// that they come from (Documentation/ABI/testing/sysfs-kernel-livepatch).
func livepatched(files fs.FS) map[string]string {
	found := make(map[string]string)
	patches, _ := fs.Glob(files, "sys/kernel/livepatch/*/enabled")
	for _, enabled := range patches {
		if on, _ := fs.ReadFile(files, enabled); strings.TrimSpace(string(on)) != "1" {
			continue
		}
		dir := path.Dir(enabled)
		functions, _ := fs.Glob(files, dir+"/*/*,*")
		for _, f := range functions {
			name, _, _ := strings.Cut(path.Base(f), ",")
			found[name] = path.Base(dir)
		}
	}
	return found
}

// kernelFiles are where distributions put what is booted, or was linked, by the release.
var kernelFiles = []string{
	"boot/vmlinuz-%s",
	"lib/modules/%s/vmlinuz", "usr/lib/modules/%s/vmlinuz",
	"boot/vmlinux-%s.xz", "boot/vmlinux-%s.gz", "boot/vmlinux-%s.zst", "boot/vmlinux-%s",
	"boot/kernel-%s", "boot/bzImage-%s",
	"usr/lib/debug/boot/vmlinux-%s", "usr/lib/debug/lib/modules/%s/vmlinux",
}

// booted opens the file that was booted.
func (h *host) booted() (code advisory.Code, name string, err error) {
	if len(livepatched(h.files)) > 0 {
		return nil, "", errors.New("the running kernel is patched live: its file does not tell")
	}
	h.image, name, err = h.findImage()
	return h.image, name, err
}

func (h *host) findImage() (*image.Image, string, error) {
	var problems []error
	for _, pattern := range kernelFiles {
		name := fmt.Sprintf(pattern, h.id.Release)
		f, err := h.files.Open(name)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				problems = append(problems, err)
			}
			continue
		}
		data, err := image.ReadFile(f)
		f.Close()
		if err != nil {
			problems = append(problems, fmt.Errorf("/%s: %w", name, err))
			continue
		}
		img, err := image.New(data)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("/%s: %w", name, err))
		case !sameBuild(h.id.Banner, img.Banner):
			problems = append(problems, fmt.Errorf("/%s is another build than the one that runs: %s", name, img.Banner))
		default:
			return img, "/" + name, nil
		}
	}
	if len(problems) == 0 {
		return nil, "", fmt.Errorf("the file of kernel %s is not in /boot, nor in its directory of modules", h.id.Release)
	}
	return nil, "", errors.Join(problems...)
}

// buildNumber is what a build's number of the banner stands in.
var buildNumber = regexp.MustCompile(` #[0-9]* ?`)

// sameBuild compares two banners, as far as both are known.
func sameBuild(a, b string) bool {
	plain := func(s string) string { return buildNumber.ReplaceAllString(strings.TrimSpace(s), " ") }
	return a == "" || b == "" || plain(a) == plain(b)
}

// OpenFile opens a kernel's file, vmlinuz or vmlinux. Modules are looked for where they lie
// beside /boot, or around the file. The error is package image's.
func OpenFile(name string) (*Kernel, error) {
	img, err := image.Open(name)
	if err != nil {
		return nil, err
	}
	h := &host{id: NewID(img.Release, img.Banner, ""), image: img}
	s := &source{sure: Code, open: func() (advisory.Code, string, error) { return img, name, nil }}
	if abs, err := filepath.Abs(name); err == nil {
		for _, place := range []string{"/boot/", "/usr/lib/modules/", "/lib/modules/", "/usr/lib/debug/"} {
			if root, _, ok := strings.Cut(abs, place); ok {
				h.files, s.add = os.DirFS(root+"/"), h.addModule
				break
			}
		}
	}
	return &Kernel{ID: h.id, sources: []*source{s}}, nil
}

// addModule adds a module to the image, if there is one of that name.
func (h *host) addModule(name string) {
	for _, dir := range []string{"lib/modules/", "usr/lib/modules/"} {
		dir += h.id.Release
		for _, file := range h.moduleFiles(dir, name) {
			f, err := h.files.Open(file)
			if err != nil {
				continue
			}
			data, err := image.ReadFile(f)
			f.Close()
			if err == nil && h.image.AddModule(name, data) == nil {
				return
			}
		}
	}
}

// moduleFiles are where a module's file may be by modules.dep, which depmod(8) writes when
// a kernel is installed, and modules.order, which is there before and knows of no
// compression. In files' names, dashes and underscores are the same.
func (h *host) moduleFiles(dir, name string) []string {
	plain := func(s string) string { return strings.ReplaceAll(s, "-", "_") }
	var files []string
	for _, list := range []string{"/modules.dep", "/modules.order"} {
		text, err := fs.ReadFile(h.files, dir+list)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			base, compressed, ok := strings.Cut(path.Base(file), ".ko")
			if !ok || plain(base) != plain(name) {
				continue
			}
			file = path.Join(dir, file)
			files = append(files, file)
			if compressed == "" {
				files = append(files, file+".xz", file+".zst", file+".gz")
			}
		}
	}
	return files
}
