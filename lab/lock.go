package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy is the error for what another process has locked.
var ErrBusy = errors.New("another process uses it")

// lockFile waits until no other process holds the file's lock, and takes it. The
// kernel gives it back when the process ends, however it does.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	return waitLock(ctx, f, unix.LOCK_EX)
}

// shareLock waits until nobody holds the lock of a file or directory alone, and takes
// it together with others: what it is for is to stay.
func shareLock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return waitLock(ctx, f, unix.LOCK_SH)
}

// tryLock takes the lock of a file or directory that exists, and does not wait: the
// error matches ErrBusy if somebody has it, alone or shared.
func tryLock(path string) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func waitLock(ctx context.Context, f *os.File, how int) (unlock func(), err error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for the lock %s: %w", f.Name(), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// inUse reports whether somebody has a lock on a file or directory.
func inUse(path string) bool {
	unlock, err := tryLock(path)
	if err != nil {
		return errors.Is(err, ErrBusy)
	}
	unlock()
	return false
}
