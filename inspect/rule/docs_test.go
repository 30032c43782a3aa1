package rule

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of variables into docs/rules.md")

const documentation = "../../docs/rules.md"

// variableTableText is the table of variables as Markdown.
func variableTableText() string {
	var b strings.Builder
	b.WriteString("| variable | type | when | |\n| --- | --- | --- | --- |\n")
	for _, v := range Variables() {
		when := "flow"
		switch {
		case v.Fact && v.PerPacket:
			when = "message"
		case v.Fact:
			when = "fact"
		case v.PerPacket:
			when = "packet"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.Name, v.Type, when, strings.ReplaceAll(v.Doc, "|", `\|`))
	}
	return b.String()
}

// TestDocumentation holds docs/rules.md against the code: its table of variables is the
// code's, and each of its files loads without a warning and compiles wholly.
func TestDocumentation(t *testing.T) {
	raw, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	before, rest, ok := strings.Cut(text, "<!-- variables: go test ./inspect/rule -run Documentation -update -->\n")
	_, after, ok2 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 {
		t.Fatal("the marks around the table of variables are gone")
	}
	want := before + "<!-- variables: go test ./inspect/rule -run Documentation -update -->\n" + variableTableText() + "<!-- end -->" + after
	if want != text {
		if *update {
			if err := os.WriteFile(documentation, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			t.Error("the table of variables is not the code's; run with -update")
		}
	}

	files := strings.Split(text, "```yaml\n")[1:]
	if len(files) < 5 {
		t.Errorf("%d example files, want at least 5", len(files))
	}
	for i, file := range files {
		file, _, _ = strings.Cut(file, "```")
		s, err := Load(fmt.Sprintf("example %d", i), []byte(file))
		if err != nil {
			t.Error(err)
			continue
		}
		if w := s.Warnings(); len(w) > 0 {
			t.Errorf("example %d: %v", i, w)
		}
		for _, d := range s.Describe() {
			if d.Interpreted > 0 {
				t.Errorf("example %d: rule %s is interpreted", i, d.Name)
			}
		}
	}

	// What the text says is compiled is.
	v := words(t)
	for _, condition := range []string{
		`tls.sni.startsWith("a") || tls.sni.contains("b") || tls.sni.matches("c") || tls.sni.size() > 3`,
		`payload.startsWith(b"a") || payload.endsWith(b"b") || payload.contains(b"c") || payload.size() > 3 || payload.at(2) == 1`,
		`tls.alpn.all(x, x != "h2") && tls.alpn.size() > 1 && tls.alpn[0] == "h2"`,
		`ip.src.isPrivate() || ip.src.isLoopback() || ip.src.isMulticast() || ip.src.isLinkLocal() || ip.src.isUnspecified()`,
		`math.bitAnd(meta.mark, 0xff) == math.bitOr(1, math.bitXor(2, meta.connmark))`,
		`ip.ttl + 1 * 2 - 3 / 4 % 5 > -ip.tos && pattern("one") && (tcp.syn ? tcp.ack : tcp.fin)`,
	} {
		checked, complaints := v.check(condition)
		if len(complaints) > 0 {
			t.Errorf("%s: %v", condition, complaints)
			continue
		}
		c := &compiler{vocabulary: v, checked: checked}
		if _, err := c.cond(checked.root, askTrue); err != nil || c.interpreted > 0 {
			t.Errorf("%s: %d parts interpreted (%v)", condition, c.interpreted, err)
		}
	}
}
