package kernel_test

import (
	"fmt"
	"log"

	"inquest/internal/kerneltest"
	"inquest/kernel"
)

// What a dump says of itself. A real one is opened with vmcore.Open.
func Example() {
	k, err := kernel.Open(kerneltest.Linux(kerneltest.Options{}).Dump())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(k.Release, "tainted:", k.Taint())

	crashed, err := k.Crashed()
	if err != nil {
		log.Fatal(err)
	}
	parent, err := crashed.Pointer("real_parent")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("crashed in", crashed.Comm, crashed.PID, "on CPU", crashed.CPU, "parent", parent)

	for r, err := range k.Log() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("[%12.6f] %s\n", r.Time.Seconds(), r.Text)
	}
	// Output:
	// 6.1.0-test tainted: DO
	// crashed in init 1 on CPU 1 parent 0x0
	// [    0.000000] Linux version 6.1.0-test
	// [    1.500000] widget: loading
	// [    2.000000] Kernel panic - not syncing: test
}

func ExampleKernel_Name() {
	k, err := kernel.Open(kerneltest.Linux(kerneltest.Options{}).Dump())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(k.Name(0xffffffffc0000110))
	// Output: widget_open+0x10 [widget]
}

func ExampleObject_Uint() {
	m := kerneltest.Linux(kerneltest.Options{})
	k, err := kernel.Open(m.Dump())
	if err != nil {
		log.Fatal(err)
	}
	task, err := k.Object("task_struct", kernel.Addr(m.Tasks[4]))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(task.Uint("real_parent->tgid"))
	fmt.Println(task.String("comm"))
	fmt.Println(task.Has("__state"), task.Has("state"))
	// Output:
	// 1 <nil>
	// gone <nil>
	// true false
}
