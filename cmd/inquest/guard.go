package main

import (
	"errors"
	"fmt"
	"strings"

	"inquest/guard"
)

var guardGroup = &group{
	name:  "guard",
	short: "shield a kernel with the nf_queue bug that cannot be replaced",
	long: `A kernel before 5.17 without the fix releases the request socket of a SYN/ACK that
waited in a packet queue as a full socket (advisory nf-queue-request-sock), and crashes,
or corrupts memory. Two shields keep it from that:

  rule  carve-outs right before the rules that queue accept the SYN/ACKs that this machine
        makes: they go uninspected; SYNs, and all that follows a SYN/ACK, do not
  hook  a kernel module gives the references back the right way; everything is inspected

docs/guard.md says what each costs, and what was measured.`,
	exit: `0 done, or nothing is to be done; 1 what was asked for could not be done, or the
machine is exposed (status); 2 the command line is wrong.`,
	tools: []*tool{
		guardPlanTool,
		guardApplyTool,
		guardRemoveTool,
		guardStatusTool,
	},
}

// whatRulesCost is said whenever carve-outs are planned or made.
const whatRulesCost = `The SYN/ACKs that this machine sends are not inspected, nor counted or marked by who
reads the queue; SYNs, and everything after the SYN/ACK, still are.`

// printRules lists the rules that queue, and what is to be said of each.
func printRules(io stdio, r *guard.Rules) {
	if len(r.Points) == 0 {
		fmt.Fprintln(io.out, "no rule queues packets in this network namespace")
	}
	for _, p := range r.Points {
		hooks := ""
		if len(p.Hooks) > 0 {
			hooks = ", from " + strings.Join(p.Hooks, ", ")
		}
		fmt.Fprintf(io.out, "%-12s %s: queue %s%s", p.State, clean(p.Rule), p.Queues, hooks)
		switch {
		case p.Why != "":
			fmt.Fprintf(io.out, ": %s", clean(p.Why))
		case p.State == guard.Shielded:
			fmt.Fprintf(io.out, ": passed %s", plural(int(p.Passed), "SYN/ACK"))
		}
		fmt.Fprintln(io.out)
		for _, c := range p.Costs {
			fmt.Fprintf(io.out, "%-12s costs: %s\n", "", c)
		}
	}
	if r.Stale > 0 {
		fmt.Fprintf(io.out, "%s shield nothing any more\n", plural(r.Stale, "carve-out"))
	}
}

func printHook(io stdio, h *guard.Hook) {
	if h == nil {
		fmt.Fprintln(io.out, "hook: not loaded")
		return
	}
	fmt.Fprintf(io.out, "hook: gave back %s on request sockets and %d on time-wait sockets; %d of them were the last\n",
		plural(int(h.RequestSocks), "reference"), h.TimewaitSocks, h.LastReferences)
}

// guardError adds what to do next.
func guardError(what string, err error) error {
	var missing *guard.MissingError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, guard.ErrPermission):
		return fmt.Errorf("guard %s: %w\nRun it as root", what, err)
	case errors.Is(err, guard.ErrNotHooked), errors.Is(err, guard.ErrUnknownKernel), errors.As(err, &missing):
		return fmt.Errorf("guard %s: %w\nThe other shield takes neither: inquest guard apply --rule", what, err)
	}
	return fmt.Errorf("guard %s: %w", what, err)
}
