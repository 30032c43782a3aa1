// Package verdict is the daemon of "inquest verdict run": it takes packets from the
// kernel's queues, has package inspect judge them, and tells the kernel.
//
// [Load] reads a rule file, rules and the section "daemon" of it; [New] makes a daemon
// of it, and [Daemon.Run] runs it until its context ends:
//
//	file, err := verdict.Load("rules.yaml")
//	if err != nil { … }
//	d, err := verdict.New(file, verdict.Options{})
//	if err != nil { … }
//	err = d.Run(ctx)
//
// [NewRuleset] is what the kernel is told, as nftables messages, as text for nft and as
// commands for iptables. [Exposed] says whether the running kernel has the bug that
// SYN/ACKs are kept out of the queues for. The daemon counts in Prometheus' metrics and
// answers "verdict top" on a Unix socket with a [Status].
package verdict
