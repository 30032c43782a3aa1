package guard

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace.
type namespace struct{ file *os.File }

// ownNamespace is that of the calling thread.
func ownNamespace() (*namespace, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return &namespace{f}, nil
}

// enter moves the calling thread into the namespace.
func (n *namespace) enter() error {
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", explained(err))
	}
	return nil
}

func (n *namespace) Close() error { return n.file.Close() }
