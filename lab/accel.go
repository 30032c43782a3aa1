package lab

// Accel is how QEMU runs a guest's code.
type Accel string

// The accelerators.
const (
	Auto Accel = ""    // KVM where a guest boots with it, else TCG
	KVM  Accel = "kvm" // the host's CPU
	TCG  Accel = "tcg" // translation: anywhere, some twenty times slower
)
