package gdb

import (
	"encoding/binary"
	"fmt"
)

// Register is a general register of x86-64, by its place in what GDB calls the "g"
// packet.
type Register int

// The registers.
const (
	RAX Register = iota
	RBX
	RCX
	RDX
	RSI
	RDI
	RBP
	RSP
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
	RIP
	numRegisters
)

// Registers are those of one CPU: first the ones that a [Register] names, 8 bytes each,
// then the stub's others.
type Registers []byte

func parseRegisters(text []byte) (Registers, error) {
	r, err := parseHex(text)
	if err == nil && len(r) < 8*int(numRegisters) {
		err = fmt.Errorf("%w: %d bytes of registers: x86-64 has at least %d", ErrProtocol, len(r), 8*numRegisters)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Get returns a register's value.
func (r Registers) Get(n Register) uint64 { return binary.LittleEndian.Uint64(r[8*n:]) }

// Set changes a register, here; [Client.SetRegisters] brings it to the CPU.
func (r Registers) Set(n Register, value uint64) { binary.LittleEndian.PutUint64(r[8*n:], value) }
