package verdict

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a file must have been left alone before it is read: editors write
// in several steps, and a copy takes its time.
const settle = 200 * time.Millisecond

// watchFile calls changed after a file's content may have changed, until the context
// ends. It watches the directory: editors write another file and rename it, which a
// watch of the file itself would lose; so do those who swap the symbolic link of a
// whole directory, as Kubernetes does for a ConfigMap.
func watchFile(ctx context.Context, path string, changed func()) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	if err := w.Add(filepath.Dir(path)); err != nil {
		w.Close()
		return err
	}
	go func() {
		defer w.Close()
		var last os.FileInfo // nil: it may have changed since it was read
		quiet := time.NewTimer(0)
		<-quiet.C
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-w.Events:
				if !ok {
					return
				}
				quiet.Reset(settle)
			case _, ok := <-w.Errors:
				if !ok {
					return
				}
				quiet.Reset(settle) // events were lost
			case <-quiet.C:
				if now := identity(path); now != nil && !same(last, now) {
					last = now
					changed()
				}
			}
		}
	}()
	return nil
}

// identity is what changes when a file's content does; nil if there is no file now.
func identity(path string) os.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

func same(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
