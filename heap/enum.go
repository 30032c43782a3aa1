package heap

import "github.com/cilium/ebpf/btf"

// enum returns the values of an enumeration, none when the kernel has no such.
func (h *Heap) enum(name string) []btf.EnumValue {
	types, err := h.k.Types()
	if err != nil {
		return nil
	}
	t, err := types.Named(name)
	if err != nil {
		return nil
	}
	if e, ok := t.(*btf.Enum); ok {
		return e.Values
	}
	return nil
}
