package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"inquest/inspect"
	"inquest/inspect/app"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
	"inquest/verdict"
)

var verdictTestTool = &tool{
	name:  "test",
	args:  "FILE --pcap CAPTURE",
	min:   1,
	max:   1,
	short: "try rules on a capture",
	long: `Judges the packets of a capture (pcap or pcapng, also gzipped) by a rule file and says
which rule decided which packet, and how often each did. Nothing of the daemon is needed,
and no rights.

With --expect the outcome is held against a YAML file, for CI of rules:

rules:
  no ads: {packets: ">0", flows: 1}
  default: {packets: 12}
frames:
  7: {rule: no ads, verdict: reject}

What is not named is left open. If an expectation is not met the exit status is 1.`,
	example: `inquest verdict test rules.yaml --pcap monday.pcap
inquest verdict test rules.yaml --pcap ads.pcap --summary --expect ads.yaml`,
	setup: func(flags *pflag.FlagSet) toolFunc {
		var d dryRun
		flags.StringVar(&d.capture, "pcap", "", "`FILE` with the packets")
		flags.StringVar(&d.expect, "expect", "", "`FILE` with what is expected")
		flags.StringVar(&d.only, "rule", "", "list only packets that the rule of this `NAME` decided")
		flags.BoolVar(&d.summary, "summary", false, "list no packets, only count")
		flags.BoolVar(&d.json, "json", false, "print JSON, one object a line: packets, then rules")
		return func(io stdio, args []string) error {
			if d.capture == "" {
				return usageError{"verdict test: which packets? give --pcap FILE\nSee `inquest help verdict test`."}
			}
			d.io, d.rules = io, args[0]
			return d.run()
		}
	},
}

// dryRun is a replay of a capture.
type dryRun struct {
	io                           stdio
	rules, capture, expect, only string
	summary, json                bool

	names  []string // of the rules, the last is the default
	counts map[string]verdict.RuleStatus
	frames map[int]verdict.ExpectedFrame // only those that something is expected of
	start  time.Time
}

// replayed is a packet as --json prints it.
type replayed struct {
	Frame   int     `json:"frame"`
	Seconds float64 `json:"seconds"` // since the first packet
	Src     string  `json:"src"`
	Dst     string  `json:"dst"`
	Proto   string  `json:"proto"`
	App     string  `json:"app,omitempty"`
	Rule    string  `json:"rule"`
	Verdict string  `json:"verdict"`
	Pending bool    `json:"pending"` // the rule waits for a fact
	Decided bool    `json:"decided"` // the flow's later packets get the same verdict
}

func (d *dryRun) run() error {
	file, err := loadRules(d.io, d.rules)
	if err != nil {
		return err
	}
	expectations := &verdict.Expectations{}
	if d.expect != "" {
		text, err := os.ReadFile(d.expect)
		if err != nil {
			return fmt.Errorf("read expectations: %w", err)
		}
		if expectations, err = verdict.ParseExpectations(text); err != nil {
			return err
		}
	}
	f, err := os.Open(d.capture)
	if err != nil {
		return fmt.Errorf("read capture: %w", err)
	}
	defer f.Close()

	d.counts, d.frames = make(map[string]verdict.RuleStatus), make(map[int]verdict.ExpectedFrame)
	for _, r := range file.Rules.Rules() {
		d.add(r.Name, r.Verdict)
	}
	d.add("default", file.Rules.Default())
	if !d.json && !d.summary {
		fmt.Fprintf(d.io.out, "%6s %11s  %-24s %-24s %-6s %-24s %-16s %s\n", "FRAME", "TIME", "FROM", "TO", "PROTO", "APP", "VERDICT", "RULE")
	}
	config := inspect.Config{MaxFlows: file.Config.Flows.Max, MaxMemory: file.Config.Flows.Memory}
	sum, err := inspect.Replay(f, file.Rules, config, func(h inspect.Hit) error {
		_, wanted := expectations.Frames[h.Frame]
		return d.hit(h, wanted)
	})
	if err != nil {
		return err
	}
	if err := d.finish(&sum); err != nil {
		return err
	}
	unmet := expectations.Unmet(d.names, d.counts, d.frames)
	for _, u := range unmet {
		fmt.Fprintf(d.io.err, "%s: %s\n", d.expect, u)
	}
	if len(unmet) > 0 {
		return fmt.Errorf("%s not met", plural(len(unmet), "expectation"))
	}
	return nil
}

func (d *dryRun) add(name string, v rule.Verdict) {
	d.names = append(d.names, name)
	d.counts[name] = verdict.RuleStatus{Name: name, Verdict: v.String()}
}

func (d *dryRun) hit(h inspect.Hit, wanted bool) error {
	if d.start.IsZero() {
		d.start = h.Time
	}
	i := h.Decision.Rule
	if i == rule.Default {
		i = len(d.names) - 1
	}
	name := d.names[i]
	c := d.counts[name]
	c.Packets++
	if h.Decision.Decided && !h.Decision.Cached {
		c.Flows++
	}
	d.counts[name] = c
	r := replayed{
		Frame: h.Frame, Seconds: h.Time.Sub(d.start).Seconds(), Src: endpoint(h.Packet, true), Dst: endpoint(h.Packet, false),
		Proto: verdict.ProtocolName(h.Packet.Proto), App: appText(h.Facts), Rule: name, Verdict: h.Decision.Verdict.String(),
		Pending: h.Decision.Pending, Decided: h.Decision.Decided,
	}
	if wanted {
		said := r.Verdict
		if r.Pending {
			said = "pending"
		}
		d.frames[h.Frame] = verdict.ExpectedFrame{Rule: name, Verdict: said}
	}
	if d.summary || d.only != "" && d.only != name {
		return nil
	}
	if d.json {
		return json.NewEncoder(d.io.out).Encode(r)
	}
	said := r.Verdict
	switch {
	case r.Pending:
		said += ", pending"
	case r.Decided:
		said += ", final"
	}
	_, err := fmt.Fprintf(d.io.out, "%6d %11.6f  %-24s %-24s %-6s %-24s %-16s %s\n",
		r.Frame, r.Seconds, r.Src, r.Dst, r.Proto, clean(r.App), said, clean(r.Rule))
	return err
}

func (d *dryRun) finish(sum *inspect.Replayed) error {
	if d.json {
		e := json.NewEncoder(d.io.out)
		for _, name := range d.names {
			if err := e.Encode(map[string]any{"rule": name, "verdict": d.counts[name].Verdict, "packets": d.counts[name].Packets, "flows": d.counts[name].Flows}); err != nil {
				return err
			}
		}
		return nil
	}
	if !d.summary {
		fmt.Fprintln(d.io.out)
	}
	fmt.Fprintf(d.io.out, "%10s %10s  %-16s %s\n", "PACKETS", "FLOWS", "VERDICT", "RULE")
	for _, name := range d.names {
		c := d.counts[name]
		fmt.Fprintf(d.io.out, "%10d %10d  %-16s %s\n", c.Packets, c.Flows, c.Verdict, clean(name))
	}
	fmt.Fprintf(d.io.out, "%s, of %s; %d without IP\n", plural(sum.Frames, "frame"), plural(int(sum.Flows.Created), "flow"), sum.Skipped)
	return nil
}

// endpoint is one end of a packet.
func endpoint(p *packet.Packet, src bool) string {
	t := p.Tuple()
	if !src {
		t = t.Reverse()
	}
	if !t.Src.IsValid() {
		return "-"
	}
	if t.SrcPort == 0 {
		return t.Src.String()
	}
	if t.Src.Is6() {
		return fmt.Sprintf("[%s]:%d", t.Src, t.SrcPort)
	}
	return fmt.Sprintf("%s:%d", t.Src, t.SrcPort)
}

// appText is what is known of a flow's application in few words.
func appText(f *app.Facts) string {
	var name string
	switch f.Proto {
	case app.ProtoTLS:
		name = f.TLS.SNI
	case app.ProtoQUIC:
		name = f.QUIC.SNI
	case app.ProtoHTTP:
		name = f.HTTP.Host
	case app.ProtoDNS:
		name = strings.Join(f.DNS.Names, ",")
	case app.ProtoSSH:
		name = f.SSH.Client.Software
	}
	return strings.TrimSpace(f.Proto.String() + " " + name)
}
