// Package gdb is a client of the GDB remote serial protocol, for the stub that QEMU
// has: it stops a virtual machine at an instruction of its kernel, and reads and
// writes its registers and memory there.
//
// Begin with [Attach], which stops the machine, set a breakpoint and let it run:
//
//	c, err := gdb.Attach(ctx, conn)
//	…
//	err = c.Break(ctx, addr)
//	stop, err := c.Continue(ctx)
//	registers, err := c.Registers(ctx, stop.Thread)
//	err = c.ReadMemory(ctx, kernel.Addr(registers.Get(gdb.RDI)), buf)
//	…
//	err = c.Detach(ctx)
//
// A thread is a CPU of the machine. Memory is that of the CPU which stopped last, by
// virtual address. The machine is x86-64, in 64-bit mode.
//
// The peer is not trusted: whatever it sends is bounded, and a packet that is not as
// the protocol has it is an error. After any but an [Error] or [ErrUnsupported] the
// connection is out of step, and all that follows fails with the same error.
package gdb
