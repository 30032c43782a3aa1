package rule

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestLoadErrors(t *testing.T) {
	// rule wraps the lines of one rule.
	rule := func(lines ...string) string {
		return "default: drop\nlists: {office: [10.0.0.0/8], web: [80], ads: [a.example]}\npatterns: {beacon: x}\nrules:\n  - name: a\n    verdict: drop\n    " +
			strings.Join(lines, "\n    ") + "\n"
	}
	tests := []struct {
		name, src string
		want      []string // "line:column: message", the message from its beginning
	}{
		{"empty", "", []string{"1:1: the file is empty"}},
		{"comment", "# nothing\n", []string{"1:1: the file is empty"}},
		{"list", "- a\n", []string{"1:1: a rule file has keys and values"}},
		{"no YAML", "default: [accept\n", []string{"1:10: sequence end token ']' not found"}},
		{"two documents", "default: drop\n---\ndefault: drop\n", []string{"3:1: a rule file is one document"}},
		{"no default", "rules: []\n", []string{"1:1: there is no default"}},
		{"unknown section", "default: drop\nrule: []\n", []string{"2:1: a rule file has no key rule; did you mean rules?"}},
		{"double section", "default: drop\ndefault: drop\n", []string{"2:1: default is there twice, first in line 1"}},
		{"bad default", "default: dorp\n", []string{`1:10: "dorp" is no verdict; did you mean drop?`}},
		{"bad pending", "default: drop\npending: reject\n", []string{"2:10: pending is accept or drop"}},
		{"anchor", "default: &a drop\n", []string{"1:10: anchors, aliases"}},
		{"tag", "default: !!str drop\n", []string{"1:10: tags are not"}},

		{"all at once", "default: drop\nrules:\n  - {name: a, when: tcp.dpot == 1, verdict: drop}\n  - {name: b, when: true, verdict: dorp}\n  - {name: a, when: true, verdict: drop, scop: flow}\n", []string{
			"3:21: there is no variable tcp.dpot; did you mean tcp.dport?",
			`4:36: "dorp" is no verdict; did you mean drop?`,
			"5:5: there are two rules a, the first in line 3",
			"5:42: a rule has no key scop; did you mean scope?",
		}},
		{"nothing in it", "default: drop\nrules:\n  - description: x\n", []string{
			"3:5: the rule has no name", "3:5: the rule has no when; write when: true", "3:5: the rule has no verdict"}},
		{"no rule", "default: drop\nrules: [accept]\n", []string{"2:9: a rule has keys and values"}},

		{"variable", rule("when: tcp.dprot == 80"), []string{"7:11: there is no variable tcp.dprot; did you mean tcp.dport?"}},
		{"far variable", rule("when: tcp.something == 80"), []string{"7:11: there is no variable tcp.something; tcp has tcp.sport, tcp.dport"}},
		{"group", rule("when: tls == 80"), []string{"7:11: tls alone is nothing, it has tls.sni"}},
		{"field of a variable", rule("when: tls.sni.length == 80"), []string{"7:11: tls.sni is of type string and has no field length"}},
		{"no quotes", rule("when: ip.proto == foo"), []string{`7:23: there is no variable foo; a text is written in quotes: "foo"`}},
		{"types", rule("when: tcp.dport == \"80\""), []string{"7:21: == does not apply to (int, string)"}},
		{"not bool", rule("when: tcp.dport"), []string{"7:11: a condition is true or false, this is of type int"}},
		{"function", rule("when: tls.sni.endWith(\"x\")"), []string{"7:26: there is no function endWith; did you mean endsWith?"}},
		{"arguments", rule("when: tls.sni.endsWith(3)"), []string{"7:27: there is no string.endsWith(int)"}},
		{"has", rule("when: has(tls.sni)"), []string{"7:15: has() is for maps"}},
		{"in", rule("when: ip.src.in(\"10.0.0.0/8\")"), []string{"7:18: in is an operator, not a function"}},
		{"syntax", rule("when: tcp.dport =="), []string{"7:23: syntax error: mismatched input '<EOF>'"}},
		{"one =", rule("when: tcp.dport = 80"), []string{"7:21: = is no operator: write =="}},
		{"one &", rule("when: tcp.syn & tcp.ack"), []string{"7:19: & is no operator: write &&"}},
		{"one |", rule("when: tcp.syn | tcp.ack"), []string{"7:19: | is no operator: write ||"}},
		{"and", rule("when: tcp.syn and tcp.ack"), []string{"7:19: and is written &&"}},
		{"or", rule("when: |", "  tcp.syn", "  or tcp.ack"), []string{"9:7: or is written ||"}},
		{"not", rule("when: not tcp.syn"), []string{"7:15: not is written !"}},
		{"~", rule("when: http.path ~ \"/x\""), []string{"7:21: ~ is no operator"}},
		{"no end of text", rule("when: http.path == \"/x"), []string{"7:24: the text that begins here has no end"}},
		{"bare address", rule("when: ip.src == 10.0.0.1"), []string{`7:25: an address is written in quotes: "10.0.0.1"`}},
		{"bare network", rule("when: ip.src in 10.0.0.0/8"), []string{`7:25: an address is written in quotes: "10.0.0.0/8"`}},
		{"number in quotes", rule("when: tcp.dport in [\"80\"]"), []string{"7:21: in does not apply to (int, list(string)); a number is written without quotes"}},
		{"fraction", rule("when: tls.version >= 1.2"), []string{"7:23: >= does not apply to (int, double); there are whole numbers only"}},
		{"seconds", rule("when: flow.age > 30"), []string{"7:20: > does not apply to (duration, int); a duration is written with its unit"}},
		{"list as text", rule("when: dns.names == \"a\""), []string{`7:21: == does not apply to (list(string), string); write "x" in dns.names`}},
		{"text of bytes", rule("when: payload.contains(\"a\")"), []string{`7:27: there is no bytes.contains(string); bytes are written b"x"`}},
		{"port", rule("when: tcp.port == 80"), []string{"7:11: there is no variable tcp.port; write tcp.dport for the server's"}},
		{"last part", rule("when: sni == \"a\""), []string{"7:11: there is no variable sni; did you mean tls.sni or quic.sni?"}},

		// Names that no fact can have.
		{"capital", rule("when: tls.sni == \"A.example\""), []string{`7:22: tls.sni is in lower case and does not end with a dot: write "a.example"`}},
		{"dot at the end", rule("when: http.host.endsWith(\".example.\")"), []string{`7:30: http.host is in lower case and does not end with a dot: write ".example"`}},
		{"capitals in a list", rule("when: quic.sni in [\"a.example\", \"B.example\"]"), []string{`7:37: quic.sni is in lower case`}},
		{"capitals of elements", rule("when: (\"A\" in dns.names) || dns.names.exists(n, n.startsWith(\"Ads.\"))"), []string{`7:12: dns.names is in lower case`, `7:66: dns.names is in lower case`}},
		{"star", rule("when: tls.sni == \"*.example\""), []string{`7:22: * is for lists of domains: write endsWith(".example")`}},

		{"indentation", "default: drop\nrules:\n  - name: a\n     when: true\n", []string{"3:11: mapping value is not allowed in this context: is this line"}},
		{"tab", "default: drop\nrules:\n  - name: a\n\twhen: true\n", []string{"4:1: a tab: YAML is indented with spaces"}},
		{"half in quotes", rule("when: \"a\" in dns.names"), []string{"7:15: something follows the closing quote"}},
		{"ports backwards", "default: drop\nlists:\n  a: [80-70]\n  b: [300.1.1.1]\n  c: [80, a]\n", []string{
			`3:7: "80-70" is no port`, `4:7: "300.1.1.1" is no address`, `5:11: "a" is no port`}},
		{"pending of no kind", "default: drop\npending: hold\n", []string{"2:10: pending is accept or drop"}},

		{"address", rule("when: ip.src == \"10.0.0\""), []string{`7:21: "10.0.0" is no address`}},
		{"network compared", rule("when: ip.src == \"10.0.0.0/8\""), []string{`7:21: "10.0.0.0/8" is a network: write ip.src in "10.0.0.0/8"`}},
		{"network bits", rule("when: ip.src in [\"10.0.0.0/8\", \"10.1.2.3/8\"]"), []string{"7:36: 10.1.2.3/8 has bits set behind its prefix length; did you mean 10.0.0.0/8?"}},
		{"protocol", rule("when: ip.proto in [\"tcp\", \"upd\"]"), []string{`7:31: "upd" is no protocol that is known by name; did you mean udp?`}},
		{"duration", rule("when: flow.age > \"ten\""), []string{`7:22: "ten" is no duration`}},
		{"list", rule("when: ip.src in list.ofice"), []string{`7:21: there is no list "ofice" in this file; did you mean office?`}},
		{"list of another kind", rule("when: ip.src in list.web"), []string{"7:18: in does not apply to (ip, ports)"}},
		{"pattern", rule("when: pattern(\"bacon\")"), []string{`7:19: there is no pattern "bacon" in this file; did you mean beacon?`}},
		{"pattern not constant", rule("when: pattern(tls.sni)"), []string{"7:19: pattern takes a name in quotes"}},
		{"expression", rule("when: tls.sni.matches(\"a(\")"), []string{"7:27: error parsing regexp: missing closing )"}},

		// Where a problem is, in each style of YAML.
		{"plain, folded", rule("when: tcp.dport == 80 &&", "  tcp.dprot == 80 # c"), []string{"8:7: there is no variable tcp.dprot"}},
		{"literal", rule("when: |", "  tcp.dport == 80 &&", "", "      tcp.dprot == 80"), []string{"10:11: there is no variable tcp.dprot"}},
		{"folded", rule("when: >-", "  tcp.dport == 80 &&", "  tcp.dprot == 80"), []string{"9:7: there is no variable tcp.dprot"}},
		{"literal, several", rule("when: |", "  tcp.dprot == 80 &&", "  ip.srcc in list.office"), []string{"8:7: there is no variable tcp.dprot", "9:7: there is no variable ip.srcc"}},
		{"single quotes", rule("when: 'tls.sni == \"it''s\" && x'"), []string{"7:34: there is no variable x"}},
		{"double quotes", rule(`when: "tls.sni == \"\u00e9\" \x26& x"`), []string{"7:40: there is no variable x"}},
		{"double quotes, folded", rule(`when: "tls.sni == \"a\"`, `  && x"`), []string{"8:10: there is no variable x"}},
		{"double quotes, continued", rule(`when: "tls.sni \`, `  == x"`), []string{"8:10: there is no variable x"}},
		{"not ASCII", rule(`when: tls.sni == "ééé" && x`), []string{"7:31: there is no variable x"}},
		{"flow style", "default: drop\nrules: [{name: é, verdict: drop, when: 'tcp.dport == 1 && x'}]\n", []string{"2:59: there is no variable x"}},

		{"rate", rule("when: true", "rate: 10/fortnight"), []string{`8:11: "10/fortnight" is no rate`}},
		{"per", rule("when: true", "rate: 10/s", "per: host"), []string{"9:10: per is one of rule, src, dst, flow"}},
		{"per without rate", rule("when: true", "per: src"), []string{"8:5: per belongs to a rate"}},
		{"scope", rule("when: true", "scope: stream"), []string{"8:12: scope is flow or packet"}},
		{"log", rule("when: true", "log: {levle: warn}"), []string{"8:11: log has no key levle; did you mean level?"}},
		{"log level", rule("when: true", "log: {level: loud}"), []string{"8:18: level is one of"}},
		{"log neither", rule("when: true", "log: maybe"), []string{"8:10: log, unless it has a level and a message, is true or false"}},
		{"disabled", rule("when: true", "disabled: 3"), []string{"8:15: disabled is true or false"}},
		{"empty when", rule("when:"), []string{"7:11: when is empty"}},
		{"several whens", rule("when: [a, b]"), []string{"7:11: when is one value, not several"}},

		{"verdicts", "default: drop\nrules:\n  - {name: a, when: true, verdict: reject tcp-reset}\n  - {name: b, when: true, verdict: reject-with tcp-rest}\n" +
			"  - {name: c, when: true, verdict: {mark: 0x100/0xff}}\n  - {name: d, when: true, verdict: queue 70000}\n  - {name: e, when: true, verdict: {mark: 1, queue: 2}}\n  - {name: f, when: true, verdict: mark}\n", []string{
			"3:36: reject takes nothing; did you mean reject-with tcp-reset?",
			`4:36: "tcp-rest" is no way to reject; did you mean tcp-reset?`,
			"5:43: mark 0x100 has bits outside of its mask 0xff",
			`6:36: "70000" is no queue`,
			"7:36: a verdict is one of mark, queue or reject-with here",
			`8:36: "" is no mark`,
		}},
		{"lists", "default: drop\nlists:\n  a: [10.0.0.0/8, x]\n  b: [80, 10.0.0.1]\n  c: [a.example, b/c]\n  d-e: [1]\n  f: []\n", []string{
			`3:19: "x" is no address: write 192.0.2.1 or 2001:db8::1; the first entry makes this a list of networks`,
			`4:11: "10.0.0.1" is no port`,
			`5:18: "b/c" is no domain`,
			`6:3: "d-e" is no name of a list`,
			"7:3: list f is empty",
		}},
		{"patterns", "default: drop\npatterns:\n  a: {hex: xyz}\n  b: {regexp: \"a(\"}\n  c: {text: a}\n  d: {fold: a, hex: b}\n", []string{
			"3:12: pattern a: ",
			"4:15: pattern b: ",
			"5:7: a pattern has no key text",
			"6:6: pattern d is one of literal, fold, hex or regexp",
		}},
		{"deep", "default: drop\nrules: " + strings.Repeat("[", 5000), []string{"2:1: brackets or dashes are nested too deep"}},
		{"deep dashes", "default: drop\nrules:\n " + strings.Repeat("- ", 5000), []string{"3:1: brackets or dashes are nested too deep"}},
		{"deep, over lines", "default: drop\nrules:\n" + strings.Repeat("  [\n", 501), []string{"503:1: brackets or dashes are nested too deep"}},
		{"many keys", "default: drop\nlists:\n" + strings.Repeat("  a: [1]\n", 10_001), []string{"10003:1: more than 10000 keys in one mapping"}},
		{"many keys in brackets", "default: drop\nlists: {" + strings.Repeat("a: [1], ", 10_001) + "}\n", []string{"2:1: more than 10000 keys in one mapping"}},
		{"old line ends", "default: drop\rrules: []\r", []string{"1:1: the file has carriage returns without line feeds"}},
		{"DOS line ends", "default: drop\r\nrules:\r\n  - name: a\r\n    verdict: drop\r\n    when: |\r\n      tcp.dport == 1 &&\r\n      x\r\n", []string{"7:7: there is no variable x"}},
		{"no text", "default: \xff\n", []string{"1:1: the file is no UTF-8 text"}},
		{"zero", "default: \x00\n", []string{"1:1: the file has a zero byte in it"}},
		{"large", strings.Repeat("#\n", 2<<20+1), []string{"1:1: the file has 4194306 bytes, more than the 4194304 that are read"}},
		{"deep condition", rule("when: " + strings.Repeat("(", 400) + "true" + strings.Repeat(")", 400)), []string{"7:11: "}},
		{"long condition", rule("when: " + strings.Repeat("true && ", 4000) + "true"), []string{"7:11: "}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load("f.yaml", []byte(test.src))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v (%T)", err, err)
			}
			var got []string
			for _, p := range e.Problems {
				got = append(got, fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Message))
			}
			ok := len(got) == len(test.want)
			for i := range min(len(got), len(test.want)) {
				ok = ok && strings.HasPrefix(got[i], test.want[i])
			}
			if !ok {
				t.Errorf("got\n\t%s\nwant\n\t%s\nof\n%.800s", strings.Join(got, "\n\t"), strings.Join(test.want, "\n\t"), test.src)
			}
			if !strings.HasPrefix(err.Error(), "f.yaml:") {
				t.Errorf("message %q does not begin with the file", err)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	s := load(t, `
default: drop
rules:
  - {name: a, when: tcp.dport == 80, verdict: drop}
  - {name: limited, when: true, rate: 1/s, verdict: drop}
  - {name: b, when: ' tcp.dport == 80', verdict: accept}
  - {name: stateless, when: tcp.dport == 80, scope: packet, verdict: drop}
  - {name: off, when: true, verdict: drop, disabled: true}
  - {name: all, when: true, verdict: drop}
  - {name: c, when: tcp.dport == 81, verdict: drop}
`)
	want := []Problem{
		{6, 21, "rule b is never reached: rule a before it has the same condition"},
		{10, 21, "rule c is never reached: rule all before it matches every packet"},
	}
	if got := s.Warnings(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestManyRules: what bounds one mapping does not bound the rules, nor lists.
func TestManyRules(t *testing.T) {
	var b strings.Builder
	b.WriteString("default: drop\nlists:\n  a:\n")
	for i := range 30_000 {
		fmt.Fprintf(&b, "    - d%d.example\n", i)
	}
	b.WriteString("rules:\n")
	for i := range 3000 {
		fmt.Fprintf(&b, "  - name: r%d\n    when: tls.sni in list.a\n    scope: packet\n    rate: 1/s\n    verdict: drop\n", i)
	}
	if s := load(t, b.String()); len(s.Rules()) != 3000 {
		t.Errorf("%d rules, want 3000", len(s.Rules()))
	}
}

func TestDaemonSection(t *testing.T) {
	s := load(t, "default: drop\ndaemon:\n  queues: 0-3\n  fail: open\n")
	var daemon struct{ Queues, Fail string }
	if err := yaml.NodeToValue(s.Daemon(), &daemon, yaml.Strict()); err != nil || daemon.Queues != "0-3" || daemon.Fail != "open" {
		t.Errorf("daemon %+v, error %v", daemon, err)
	}
}

func TestDescribe(t *testing.T) {
	src, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"broken packets":          "index  interpreted 0 facts [] queued [ip.anomalies]",
		"office":                  "index  interpreted 0 facts [] queued []",
		"ssh, not too often":      "index destination port interpreted 0 facts [] queued [tcp.syn tcp.ack rate]",
		"ads":                     "index  interpreted 0 facts [tls.sni quic.sni http.host] queued [http.host]",
		"names that are blocked":  "index dns.names interpreted 0 facts [dns.names] queued [dns.names]",
		"telnet":                  "index destination port interpreted 0 facts [] queued []",
		"command and control":     "index  interpreted 0 facts [] queued [pattern]",
		"old TLS":                 "index destination port interpreted 0 facts [app.proto tls.version] queued []",
		"voice first":             "index protocol interpreted 0 facts [] queued []",
		"windows without options": "index  interpreted 0 facts [] queued [tcp.syn tcp.ack tcp.mss]",
	}
	described := load(t, string(src)).Describe()
	if len(described) != len(tests) {
		t.Errorf("%d rules, want %d", len(described), len(tests))
	}
	for _, d := range described {
		if got := fmt.Sprintf("index %s interpreted %d facts %v queued %v", d.Index, d.Interpreted, d.Facts, d.KeepsQueued); got != tests[d.Name] {
			t.Errorf("%s:\n got %s\nwant %s", d.Name, got, tests[d.Name])
		}
	}
}

// TestInterpretedParts pins what has a compiled form and what has none.
func TestInterpretedParts(t *testing.T) {
	tests := map[string]int{
		`tcp.dport == 80 && tls.sni.lowerAscii() == "a"`:              1,
		`tls.alpn.exists(a, a.lowerAscii() == "h2")`:                  1,
		`tls.alpn.exists(a, a == "h2" || tls.sni.lowerAscii() == "")`: 1,
		`tls.alpn.all(a, a.size() == 2)`:                              0,
		`math.bitAnd(meta.mark, 0xff) == 3`:                           0,
		`flow.age > "1m" && payload.at(0) == 22`:                      0,
		`ip.src == ip("10.0.0.1") || ip.dst.isMulticast()`:            0,
		`tls.sni.matches("^a") != (tcp.dport in [1, 2])`:              0,
	}
	v := words(t)
	for text, want := range tests {
		condition, complaints := v.check(text)
		if len(complaints) > 0 {
			t.Errorf("%s: %v", text, complaints)
			continue
		}
		c := &compiler{vocabulary: v, checked: condition}
		if _, err := c.cond(condition.root, askTrue); err != nil || c.interpreted != want {
			t.Errorf("%s: %d parts interpreted (%v), want %d", text, c.interpreted, err, want)
		}
	}
}
