package inspect_test

import (
	"fmt"

	"inquest/inspect"
	"inquest/inspect/rule"
)

func Example() {
	set, err := rule.Load("rules.yaml", []byte(`
default: accept
rules:
  - name: no telnet
    when: tcp.dport == 23
    verdict: reject
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	engine := inspect.New(set, inspect.Config{MaxFlows: 100_000})
	worker := engine.Worker()

	syn := connect("10.0.0.1:40000", "10.0.0.2:23").open()[0] // a packet from its IP header on
	d := worker.Inspect(syn, nil, 0)
	fmt.Println(d.Verdict, set.Rules()[d.Rule].Name, d.Decided)
	// Output: reject no telnet true
}
