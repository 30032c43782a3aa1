// Package heap says whose memory an address is: an object of a slab cache, allocated
// or free, with its neighbours and, where the kernel kept them, who allocated and
// freed it; a vmalloc area and who asked for it; a page and what it is used for; a
// stack and the frame on it; a per-CPU variable; the kernel's or a module's code and
// data; a task's user memory; or a hole.
//
// [New] costs nothing; [Heap.Identify] reads a few pages for each address.
// [Heap.Caches] lists the slab caches, [Heap.Objects] the objects of one and
// [Heap.Check] looks at every slab there is, in parallel.
//
// The allocator is SLUB (mm/slub.c), the only one since 6.8 and the usual one before.
package heap
