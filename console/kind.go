package console

// Kind is the kernel's own kind of report.
type Kind string

// The kinds of report that are told apart.
const (
	PageFault      Kind = "page fault"
	Protection     Kind = "general protection fault"
	BUG            Kind = "BUG"
	Warning        Kind = "warning"
	InvalidOpcode  Kind = "invalid opcode"
	DivideError    Kind = "divide error"
	Trap           Kind = "trap" // any other exception
	DoubleFault    Kind = "double fault"
	StackGuard     Kind = "stack overflow"
	StackEnd       Kind = "corrupted stack end"
	StackProtector Kind = "stack protector"
	SoftLockup     Kind = "soft lockup"
	HardLockup     Kind = "hard lockup"
	HungTask       Kind = "hung task"
	RCUStall       Kind = "RCU stall"
	MachineCheck   Kind = "machine check"
	NMI            Kind = "NMI"
	OutOfMemory    Kind = "out of memory"
	Panic          Kind = "panic"
	SysRq          Kind = "sysrq"
	KASAN          Kind = "KASAN"
	KFENCE         Kind = "KFENCE"
	KMSAN          Kind = "KMSAN"
	KCSAN          Kind = "KCSAN"
	UBSAN          Kind = "UBSAN"
	Lockdep        Kind = "lockdep"
	LockUse        Kind = "lock use"        // a lock that was used wrongly, by lockdep or the lock itself
	RCUUsage       Kind = "RCU usage"       // suspicious, by lockdep
	Atomic         Kind = "atomic context"  // scheduling or sleeping in it
	Preemptible    Kind = "preemptible use" // of what is per CPU
	List           Kind = "list corruption"
	RefCount       Kind = "reference count"
	UserCopy       Kind = "usercopy"
	Fortify        Kind = "fortify"
	Slab           Kind = "slab"
	BadPage        Kind = "bad page"
	Workqueue      Kind = "workqueue"
	Leak           Kind = "memory leak"
	DebugObject    Kind = "debug object"
	SKB            Kind = "socket buffer" // skb_over_panic and skb_under_panic
	Rust           Kind = "rust panic"
	Session        Kind = "crash session" // a stack that crash(8) printed
)

// note reports whether a kind says what went wrong where a BUG or a WARNING of the
// same report only says that the kernel noticed.
func (k Kind) note() bool {
	switch k {
	case List, RefCount, UserCopy, Fortify, Slab, SKB, DebugObject, Rust, StackProtector, StackEnd, Atomic:
		return true
	}
	return false
}

// trap reports whether a kind is the exception that another line in front of it may
// have explained: "kernel BUG at" is followed by the invalid opcode that it trapped with.
func (k Kind) trap() bool {
	switch k {
	case PageFault, Protection, InvalidOpcode, DivideError, Trap, DoubleFault:
		return true
	}
	return false
}

// Watchdog reports whether a report is, as a rule, on another task or CPU than the one
// that made it.
func (k Kind) Watchdog() bool {
	switch k {
	case SoftLockup, HardLockup, HungTask, RCUStall, Workqueue:
		return true
	}
	return false
}
