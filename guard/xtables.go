package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// xtables is what iptables-save prints for one version of IP: the rules of the older
// tables, which nf_tables does not know.
type xtables struct {
	program string // "iptables-legacy": with -save and -restore, what reads and writes it
	tables  []*xtable
}

type xtable struct {
	name   string // "filter"
	chains []*xchain
}

type xchain struct {
	name  string // "OUTPUT"
	base  bool
	rules []xrule
}

// xrule is a rule as iptables-save prints it.
type xrule struct {
	words   []word // without "-A CHAIN"
	packets uint64
}

// word is one of a line, with its quotes taken off.
type word struct {
	text   string
	quoted bool
}

// ErrNoPrograms is the error for a machine with rules that only iptables can read,
// and without iptables.
var ErrNoPrograms = errors.New("there are tables of iptables, and no iptables-legacy-save or iptables-save to read them (package iptables)")

// readXTables reads the tables of iptables and ip6tables that the kernel has loaded.
func readXTables(ctx context.Context) ([]*xtables, error) {
	var all []*xtables
	for _, v := range []struct{ names, program string }{
		{"ip_tables_names", "iptables"}, {"ip6_tables_names", "ip6tables"},
	} {
		// /proc/net is that of the process's first thread.
		names, err := os.ReadFile("/proc/thread-self/net/" + v.names)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("find the tables of %s: %w", v.program, explained(err))
		}
		if len(bytes.TrimSpace(names)) == 0 {
			continue
		}
		x, err := saved(ctx, v.program)
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, nil
}

// saved runs the program that reads the older tables: today that of iptables may be
// one for nftables.
func saved(ctx context.Context, program string) (*xtables, error) {
	for _, name := range []string{program + "-legacy", program} {
		if _, err := exec.LookPath(name + "-save"); err != nil {
			continue
		}
		out, err := runProgram(ctx, "", name+"-save", "--counters")
		if err != nil {
			return nil, err
		}
		if head, _, _ := strings.Cut(out, "\n"); name == program && strings.Contains(head, "nft") {
			continue
		}
		x, err := parseXTables(out)
		if err != nil {
			return nil, fmt.Errorf("%s-save: %w", name, err)
		}
		x.program = name
		return x, nil
	}
	return nil, ErrNoPrograms
}

// restore has iptables-restore make changes; none for "".
func (x *xtables) restore(ctx context.Context, script string) error {
	if script == "" {
		return nil
	}
	_, err := runProgram(ctx, script, x.program+"-restore", "--noflush", "--wait")
	return err
}

func runProgram(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

// parseXTables reads what iptables-save prints, with or without counters.
func parseXTables(text string) (*xtables, error) {
	x := &xtables{}
	var t *xtable
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line[0] == '#':
		case line[0] == '*':
			t = &xtable{name: line[1:]}
			x.tables = append(x.tables, t)
		case t == nil:
			return nil, fmt.Errorf("unexpected line before any table: %q", line)
		case line == "COMMIT":
			t = nil
		case line[0] == ':':
			name, rest, _ := strings.Cut(line[1:], " ")
			t.chains = append(t.chains, &xchain{name: name, base: !strings.HasPrefix(rest, "-")})
		default:
			if err := t.parseRule(line); err != nil {
				return nil, err
			}
		}
	}
	return x, nil
}

// parseRule reads "[12:720] -A OUTPUT -p tcp -j NFQUEUE".
func (t *xtable) parseRule(line string) error {
	var r xrule
	if strings.HasPrefix(line, "[") {
		fmt.Sscanf(line, "[%d:", &r.packets)
		_, line, _ = strings.Cut(line, " ")
	}
	words, err := splitWords(line)
	if err != nil {
		return err
	}
	if len(words) < 2 || words[0].text != "-A" {
		return fmt.Errorf("unexpected line %q", line)
	}
	r.words = words[2:]
	c := t.chain(words[1].text)
	if c == nil {
		return fmt.Errorf("a rule of chain %s, which table %s does not have", words[1].text, t.name)
	}
	c.rules = append(c.rules, r)
	return nil
}

func (t *xtable) chain(name string) *xchain {
	if i := slices.IndexFunc(t.chains, func(c *xchain) bool { return c.name == name }); i >= 0 {
		return t.chains[i]
	}
	return nil
}

// splitWords splits a line as iptables-restore does: at blanks but for those between
// double quotes, where a backslash takes the next character as it is.
func splitWords(line string) ([]word, error) {
	var words []word
	var b strings.Builder
	inside, quoted, escaped := false, false, false
	end := func() {
		if b.Len() > 0 || quoted {
			words = append(words, word{b.String(), quoted})
		}
		b.Reset()
		quoted = false
	}
	for _, c := range line {
		switch {
		case escaped:
			b.WriteRune(c)
			escaped = false
		case inside && c == '\\':
			escaped = true
		case c == '"':
			inside, quoted = !inside, true
		case !inside && (c == ' ' || c == '\t'):
			end()
		default:
			b.WriteRune(c)
		}
	}
	if inside {
		return nil, fmt.Errorf("a quote without its end in %q", line)
	}
	end()
	return words, nil
}

func (w word) String() string {
	if w.quoted || strings.ContainsAny(w.text, " \t\"\\'") || w.text == "" {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w.text) + `"`
	}
	return w.text
}

// target is what follows -j or -g, with its arguments.
func (r *xrule) target() []word {
	for i, w := range r.words {
		if !w.quoted && (w.text == "-j" || w.text == "-g") {
			return r.words[i+1:]
		}
	}
	return nil
}

// option is the word after one of the target's, or "".
func (r *xrule) option(name string) (string, bool) {
	list := r.target()
	for i, w := range list {
		if w.text == name && !w.quoted {
			if i+1 < len(list) {
				return list[i+1].text, true
			}
			return "", true
		}
	}
	return "", false
}

// ours reports whether the rule is a carve-out, and for what.
func (r *xrule) ours() (comment string, ours bool) {
	for i, w := range r.words {
		if w.text == "--comment" && !w.quoted && i+1 < len(r.words) && strings.HasPrefix(r.words[i+1].text, owner) {
			return r.words[i+1].text, true
		}
	}
	return "", false
}

// conditions are the rule's, with what a carve-out cannot have left out, and with TCP
// as the protocol. ok is false if no TCP passes them.
func (r *xrule) conditions() (list []string, left []string, ok bool) {
	words := r.words
	for i, w := range words {
		if !w.quoted && (w.text == "-j" || w.text == "-g") {
			words = words[:i]
			break
		}
	}
	skip := false // the options of a match that is left out
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w.quoted:
		case w.text == "!" && i+2 < len(words) && words[i+1].text == "-p":
			if words[i+2].text == "tcp" {
				return nil, nil, false
			}
			i += 2
			continue
		case w.text == "-p" && i+1 < len(words):
			if name := words[i+1].text; name != "tcp" && name != "all" {
				return nil, nil, false
			}
			i++
			continue
		case w.text == "-m" && i+1 < len(words):
			name := words[i+1].text
			skip = name == "comment" || slices.Contains(changefulMatches, name)
			if skip && name != "comment" {
				left = append(left, name)
			}
		}
		if !skip {
			list = append(list, w.String())
		}
	}
	// Before the matches, as iptables-save has it: addresses and devices come first.
	at := slices.Index(list, "-m")
	if at < 0 {
		at = len(list)
	}
	return slices.Insert(list, at, "-p", "tcp", "-m", "tcp", "--tcp-flags", "SYN,ACK", "SYN,ACK"), left, true
}

// carveOutComment is like that of a carve-out in nftables.
func carveOutComment(conditions []string) string {
	h := fnv.New32a()
	for _, c := range conditions {
		fmt.Fprintf(h, "%s ", c)
	}
	return fmt.Sprintf("%s %08x", owner, h.Sum32())
}
