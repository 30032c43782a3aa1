// Package rule judges packets by rules that people write: one YAML file with a name, a
// condition and a verdict for each.
//
// [Load] reads a file, and reports everything that is wrong with it by line and
// column. [Set.Judge] says what the rules say of one packet:
//
//	set, err := rule.Load("rules.yaml", data)
//	…
//	var scratch rule.Scratch // one for each goroutine
//	outcome := set.Judge(&rule.Env{Packet: p, Flow: flow, Facts: facts, Meta: meta}, now, &scratch)
//
// Conditions are CEL expressions (https://cel.dev) over the variables of [Variables],
// type-checked when loaded. They are compiled to closures that allocate nothing; what
// has no closure is left to cel-go's interpreter, and [Set.Describe] says where that is
// so. Rules are found by index: by ports, addresses, and the ends of names.
//
// # Four outcomes
//
// CEL knows true, false, error and unknown, and this package gives the last two a
// meaning. A header that a packet does not have is an error: no comparison with it
// makes a rule match, neither == nor !=, as in nftables. A fact that the flow has not
// shown yet is unknown: the rule is pending, and packets get the file's `pending`
// verdict until the fact is known or certain never to be; then it is empty.
//
// # Decided flows
//
// Rules see the flow's first packet's addresses and ports whichever way a packet goes,
// unless they say `scope: packet`. So one packet can decide for all of a flow:
// [Outcome].PerFlow tells that the outcome rests on nothing that may still change.
//
// docs/rules.md teaches the language to those who write rules.
package rule
