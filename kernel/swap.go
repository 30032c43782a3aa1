package kernel

import "fmt"

// Swap is a swap area that is in use: struct swap_info_struct.
type Swap struct {
	Object
	Path      string
	Partition bool   // a block device; else a file
	Pages     uint64 // that can be used
	Used      uint64
	Priority  int
}

// maxSwaps is MAX_SWAPFILES.
const maxSwaps = 32

// Swaps returns the swap areas. What could be read comes with the error.
func (k *Kernel) Swaps() ([]Swap, error) {
	table, err := k.Symbol("swap_info")
	if err != nil {
		return nil, nil // without CONFIG_SWAP
	}
	counter, err := k.Symbol("nr_swapfiles")
	if err != nil {
		return nil, err
	}
	n, err := k.U32(counter)
	if err != nil {
		return nil, fmt.Errorf("read nr_swapfiles: %w", err)
	}
	var list []Swap
	var first error
	for i := range min(n, maxSwaps) {
		s, used, err := k.swap(table + Addr(8*i))
		if err != nil && first == nil {
			first = fmt.Errorf("swap area %d: %w", i, err)
		}
		if used {
			list = append(list, s)
		}
	}
	return list, first
}

func (k *Kernel) swap(slot Addr) (s Swap, used bool, err error) {
	const swpUsed = 1 // SWP_USED, include/linux/swap.h
	at, err := k.Pointer(slot)
	if err != nil || at == 0 {
		return s, false, err
	}
	if s.Object, err = k.Object("swap_info_struct", at); err != nil {
		return s, false, err
	}
	flags, err := s.Uint("flags")
	if err != nil || flags&swpUsed == 0 {
		return s, false, err
	}
	if s.Pages, err = s.Uint("pages"); err != nil {
		return s, true, err
	}
	if s.Used, err = s.Uint("inuse_pages"); err != nil { // an atomic_long_t since 6.13
		return s, true, err
	}
	s.Used &= 1<<62 - 1 // SWAP_USAGE_OFFLIST_BIT
	prio, err := s.Int("prio")
	if err != nil {
		return s, true, err
	}
	s.Priority = int(prio)
	file, err := s.Pointer("swap_file")
	if err != nil || file == 0 {
		return s, true, err
	}
	f, err := k.openFile(file)
	s.Path, s.Partition = f.Path, f.Type == "BLK"
	return s, true, err
}
