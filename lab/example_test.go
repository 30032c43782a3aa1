package lab_test

import (
	"context"
	"fmt"
	"log"

	"inquest/lab"
)

// Crash Debian's kernel for virtual machines, and dump it as kdump does.
func ExampleRun() {
	ctx := context.Background()
	k, err := lab.FindKernel(ctx, "debian", nil)
	if err != nil {
		log.Fatal(err)
	}
	sysrq, err := lab.FindScenario("sysrq")
	if err != nil {
		log.Fatal(err)
	}
	result, err := lab.Run(ctx, lab.Experiment{
		Scenario: sysrq,
		Kernel:   k,
		Dir:      "sysrq.lab",
		Kdump:    []lab.Save{{File: "vmcore", Arguments: []string{"-l", "-d", "31"}}},
		Progress: func(step string) { fmt.Println(step) },
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Dumps[0].Path, "shows a", result.Truth.Classes)
}
