package heap_test

import (
	"fmt"
	"log"

	"inquest/heap"
	"inquest/kernel"
	"inquest/vmcore"
)

// The address is what the kernel took for a struct sock when it crashed.
func ExampleHeap_Identify() {
	dump, err := vmcore.Open("../testdata/example.kdump")
	if err != nil {
		log.Fatal(err)
	}
	defer dump.Close()
	k, err := kernel.Open(dump)
	if err != nil {
		log.Fatal(err)
	}
	m, err := heap.New(k).Identify(0xff36ff3c40d87010)
	if err != nil {
		log.Fatal(err)
	}
	size, err := k.SizeOf("struct sock")
	if err != nil {
		log.Fatal(err)
	}
	o := m.Slab
	fmt.Printf("%d bytes into object %d of cache %s\n", o.Offset, o.Index, o.Cache.Name)
	fmt.Printf("an object has %d bytes, struct sock %d\n", o.Size, size)
	// Output:
	// 16 bytes into object 0 of cache request_sock_TCP
	// an object has 304 bytes, struct sock 728
}
