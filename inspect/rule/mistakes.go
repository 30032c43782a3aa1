package rule

import (
	"fmt"
	"regexp"
	"strings"

	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// What people write who come from other languages, and what they should write.

// misspelt are the beginnings of what CEL's lexer and parser stumble over.
var misspelt = []struct{ begins, advice string }{
	{"and", "and is written &&"},
	{"or", "or is written ||"},
	{"is", "is is written =="},
	{"=", "= is no operator: write == to compare"},
	{"&", "& is no operator: write && between conditions, math.bitAnd(a, b) for bits"},
	{"|", "| is no operator: write || between conditions, math.bitOr(a, b) for bits"},
	{"~", `~ is no operator: write http.path.matches("…")`},
	{`"`, "the text that begins here has no end"},
	{"'", "the text that begins here has no end"},
}

var (
	negated = regexp.MustCompile(`\bnot\s+$`)
	// bareAddress is an address without quotes, from where the parser gives up, which is
	// in its middle.
	bareAddress = regexp.MustCompile(`\b\d+(\.\d+){3}(/\d+)?\b`)
)

// syntaxAdvice is what to write instead of that at which the parser stopped, "" when
// that is not known.
func syntaxAdvice(text string, at int) string {
	for _, a := range bareAddress.FindAllStringIndex(text, -1) {
		if a[0] <= at && at < a[1] {
			return fmt.Sprintf("an address is written in quotes: %q", text[a[0]:a[1]])
		}
	}
	if negated.MatchString(text[:at]) {
		return "not is written !"
	}
	rest := text[at:]
	for _, m := range misspelt {
		after, found := strings.CutPrefix(rest, m.begins)
		word := m.begins[0] >= 'a' && m.begins[0] <= 'z'
		if found && (!word || after == "" || !identifier.MatchString(after[:1])) {
			return m.advice
		}
	}
	return ""
}

// typeAdvice is what to write where an operator does not fit its operands.
func typeAdvice(args string) string {
	switch args {
	case "(int, string)", "(string, int)", "(int, list(string))":
		return "; a number is written without quotes"
	case "(int, double)", "(double, int)":
		return "; there are whole numbers only, and 0x0303 is TLS 1.2, 0x0304 TLS 1.3"
	case "(duration, int)", "(int, duration)":
		return `; a duration is written with its unit, in quotes: "30s"`
	case "(list(string), string)":
		return `; write "x" in dns.names`
	}
	return ""
}

// memberAdvice is the same for functions.
func memberAdvice(target string) string {
	switch {
	case target == "list(string)":
		return `; write "x" in dns.names, or dns.names.exists(n, n.endsWith("x"))`
	case target == "bytes":
		return `; bytes are written b"x"`
	}
	return ""
}

// lowered are the facts that the analyzers give in lower case and without the dot at the
// end of a name.
var lowered = map[string]bool{"tls.sni": true, "quic.sni": true, "http.host": true, "dns.names": true}

// hostName complains about a text that the names in of, a fact or one of its elements,
// are compared with and that none of them can be.
func (r *resolver) hostName(function string, of, lit celast.Expr) {
	name, _ := dotted(of)
	text, ok := literalString(lit)
	if list := r.elements[name]; list != "" {
		name = list
	}
	if !ok || !lowered[name] {
		return
	}
	plain := strings.ToLower(text)
	switch function {
	case "startsWith", "contains":
	case operators.Equals, operators.NotEquals, operators.In:
		if domain, ok := strings.CutPrefix(plain, "*"); ok {
			r.complain(lit, "* is for lists of domains: write endsWith(%q)", domain)
			return
		}
		fallthrough
	case "endsWith":
		if len(plain) > 1 {
			plain = strings.TrimSuffix(plain, ".")
		}
	default:
		return
	}
	if plain != text {
		r.complain(lit, "%s is in lower case and does not end with a dot: write %q", name, plain)
	}
}
