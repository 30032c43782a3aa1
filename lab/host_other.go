//go:build !linux

package lab

import (
	"errors"
	"os/exec"
)

// dieWithParent does nothing here: only VM.Close ends a VM.
func dieWithParent(*exec.Cmd) {}

// endWithChildren does nothing here.
func endWithChildren(*exec.Cmd) {}

func offersKVM() error { return errors.ErrUnsupported }
