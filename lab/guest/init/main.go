//go:build linux

// Command init is the smallest program that a lab guest can have. Package lab's tests
// compile it; `inquest lab` takes the inquest program itself.
package main

import (
	"fmt"
	"os"

	"inquest/lab/guest"
)

func main() {
	if !guest.Called() {
		fmt.Fprintln(os.Stderr, "init is the init of a lab guest, and of no use outside of one")
		os.Exit(2)
	}
	guest.Main()
}
