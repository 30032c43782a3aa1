package rule

import (
	"math/rand/v2"
	"os"
	"testing"
)

// FuzzLoad loads anything, and judges packets by what loads.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{
		"", "default: drop", "default: {verdict: drop, log: true}\nrules: [{name: a, when: 'true', verdict: {mark: 1}}]\n",
		"default: accept\nlists: {a: [1, 2-3], b: [::/0], c: .x}\nrules:\n- name: x\n  when: |\n    ip.src in list.b &&\n    tcp.dport in list.a\n  verdict: queue 3\n  rate: over 1/s burst 3\n  per: flow\n",
		"default: drop\nrules:\n- {name: \"\\u00e9\", when: \"tls.sni ==\\\n \\x41\", verdict: reject-with tcp-reset}\n",
		"default: &a drop\npending: *a\n", "? a\n: b\n", "a: |+2\n  x\n\n", "\"a\\", "- - - -", "{{{{", "rules: !!map {}\n",
	} {
		f.Add([]byte(seed))
	}
	g := generator{rand.New(rand.NewPCG(5, 6))}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Load("fuzz.yaml", data)
		if err != nil {
			e, ok := err.(*Error)
			if !ok || len(e.Problems) == 0 {
				t.Fatalf("error %T %v", err, err)
			}
			for _, p := range e.Problems {
				if p.Line < 1 || p.Column < 1 || p.Message == "" {
					t.Fatalf("problem %+v", p)
				}
			}
			return
		}
		var scratch Scratch
		all := linear(s)
		for range 3 {
			e := g.env()
			if s.limits {
				s.Judge(e, 0, &scratch)
			} else if got, want := s.Judge(e, 0, &scratch), all.Judge(e, 0, &scratch); got != want {
				t.Fatalf("indexed %+v, linear %+v", got, want)
			}
		}
		s.Describe()
		s.Warnings()
	})
}

// FuzzCondition holds the compiled form of any condition against the interpreter.
func FuzzCondition(f *testing.F) {
	for _, seed := range []string{
		`tcp.dport == 443 && tls.sni.endsWith(".example")`, `ip.src in "10.0.0.0/8" || !(ip.dst in list.office)`,
		`dns.names.exists(n, n in list.ads) ? tcp.syn : payload.at(0) == 22`, `tls.alpn.all(a, tls.alpn.exists(b, a != b))`,
		`size(tls.sni) / (tcp.dport - 80) >= -1 && flow.age < "1m"`, `{"a": [1]}["a"][0] == 1`, `type(tcp.dport) == int`, `tls.alpn.map(a, a + "x") == ["h2x"]`,
		`[1, 2.0, 3u].exists(x, x == tcp.dport)`, `ip(tls.sni) == ip.src`, `ip.src in cidr(tls.sni)`, `b"a" < payload`, `"\u00e9".matches(tls.sni)`,
		`pattern("one") != pattern("two")`, `timestamp("2020-01-01T00:00:00Z").getFullYear() == 2020`, `flow.age + duration("1s") > duration("2s")`,
	} {
		f.Add(seed, uint64(1))
	}
	v := words(f)
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		condition, complaints := v.check(text)
		if len(complaints) > 0 {
			return
		}
		c := &compiler{vocabulary: v, checked: condition}
		if _, err := c.interpret(condition.root); err != nil {
			return // a constant part that is an error, which Load reports
		}
		compareForms(t, v, text, generator{rand.New(rand.NewPCG(seed, 7))}, nil)
	})
}
