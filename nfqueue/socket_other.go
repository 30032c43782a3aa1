//go:build !linux

package nfqueue

import "fmt"

func bind(uint16, *Config) (transport, error) {
	return nil, fmt.Errorf("%w: packet queues are Linux's", ErrUnsupported)
}

func pin(int) error { return ErrUnsupported }
