package rule_test

import (
	"fmt"
	"net/netip"

	"inquest/inspect/app"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
)

func Example() {
	set, err := rule.Load("rules.yaml", []byte(`
default: accept
lists:
  ads: [.ads.example]
rules:
  - name: no ads
    when: tcp.dport == 443 && tls.sni in list.ads
    verdict: reject
`))
	if err != nil {
		fmt.Println(err) // rules.yaml:7:11: there is no variable …
		return
	}
	p := &packet.Packet{
		Version: 4, Proto: packet.ProtoTCP, HasTransport: true,
		Src: netip.MustParseAddr("192.0.2.1"), SrcPort: 40000,
		Dst: netip.MustParseAddr("198.51.100.1"), DstPort: 443,
	}
	env := &rule.Env{Packet: p, Flow: rule.FlowInfo{Tuple: p.Tuple()}, Facts: &app.Facts{}, PatternsDone: true}
	var scratch rule.Scratch
	show := func(o rule.Outcome) {
		fmt.Printf("%v, pending %v, for the flow %v\n", o.Verdict, o.Pending, o.PerFlow)
	}

	show(set.Judge(env, 0, &scratch)) // the name is not known yet
	env.Facts.TLS.SNI = "www.ads.example"
	env.Facts.Known, env.Facts.Final = app.AllFields, app.AllFields
	show(set.Judge(env, 0, &scratch))
	// Output:
	// accept, pending true, for the flow false
	// reject, pending false, for the flow true
}

func ExampleLoad_errors() {
	_, err := rule.Load("rules.yaml", []byte(`
default: accept
rules:
  - name: web
    when: |
      tcp.dprot == 80 &&
        ip.src in "10.1.2.3/8"
    verdict: dorp
`))
	fmt.Println(err)
	// Output:
	// rules.yaml:6:7: there is no variable tcp.dprot; did you mean tcp.dport?
	// rules.yaml:7:19: 10.1.2.3/8 has bits set behind its prefix length; did you mean 10.0.0.0/8?
	// rules.yaml:8:14: "dorp" is no verdict; did you mean drop?
}
