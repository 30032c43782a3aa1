package rule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

var ruleKeys = []string{"name", "description", "when", "verdict", "log", "rate", "per", "scope", "disabled"}

func (r *reader) rule(n ast.Node) (rule Rule, when ast.Node) {
	rule.Line, _ = place(n)
	entries, ok := r.mapping(n, "a rule")
	if !ok {
		return rule, nil
	}
	by := r.known(entries, "a rule", ruleKeys...)
	for _, name := range []string{"name", "when", "verdict"} {
		if _, ok := by[name]; !ok {
			hint := ""
			if name == "when" {
				hint = "; write when: true for a rule that matches everything"
			}
			r.complain(n, "the rule has no %s%s", name, hint)
		}
	}
	for name, e := range by {
		switch name {
		case "name":
			rule.Name, _ = r.scalar(e.value, "name")
			if len(rule.Name) > 128 || strings.ContainsFunc(rule.Name, func(c rune) bool { return c < ' ' }) {
				r.complain(e.value, "a rule's name is up to 128 characters in one line")
			}
		case "description":
			rule.Description, _ = r.scalar(e.value, "description")
		case "when":
			if rule.When, ok = r.scalar(e.value, "when"); ok {
				when = e.value
			}
		case "verdict":
			rule.Verdict = r.verdict(e.value)
		case "log":
			rule.Log = r.log(e.value)
		case "rate":
			rule.Rate = r.rate(e.value, by)
		case "per":
			if _, ok := by["rate"]; !ok {
				r.complain(e.key, "per belongs to a rate, and the rule has none")
			}
		case "scope":
			switch scope, _ := r.scalar(e.value, "scope"); scope {
			case "packet":
				rule.PerPacket = true
			case "flow":
			default:
				r.complain(e.value, "scope is flow or packet")
			}
		case "disabled":
			rule.Disabled = r.boolean(e.value, "disabled")
		}
	}
	return rule, when
}

func (r *reader) rate(n ast.Node, by map[string]entry) *Rate {
	text, ok := r.scalar(n, "rate")
	if !ok {
		return nil
	}
	rate, err := parseRate(text)
	if err != nil {
		r.complain(n, "%v", err)
	}
	if per, ok := by["per"]; ok {
		share, _ := r.scalar(per.value, "per")
		i := slices.Index(shareNames[:], share)
		if i < 0 {
			r.complain(per.value, "per is one of %s", strings.Join(shareNames[:], ", "))
		}
		rate.Of = Share(max(i, 0))
	}
	return &rate
}

func (r *reader) log(n ast.Node) Log {
	if _, isMap := n.(*ast.MappingNode); !isMap {
		return Log{On: r.boolean(n, "log, unless it has a level and a message,")}
	}
	log := Log{On: true}
	entries, _ := r.mapping(n, "log")
	by := r.known(entries, "log", "level", "message")
	if e, ok := by["level"]; ok {
		if text, ok := r.scalar(e.value, "level"); ok && log.Level.UnmarshalText([]byte(text)) != nil {
			r.complain(e.value, "level is one of debug, info, warn, error")
		}
	}
	if e, ok := by["message"]; ok {
		log.Message, _ = r.scalar(e.value, "message")
	}
	return log
}

// verdict reads "drop", "mark 0x1/0xff", "queue 3", "reject-with tcp-reset", or a
// mapping {mark: 0x1/0xff}.
func (r *reader) verdict(n ast.Node) (v Verdict) {
	var kind, argument string
	at := n
	if _, isMap := n.(*ast.MappingNode); isMap {
		entries, _ := r.mapping(n, "a verdict")
		if len(entries) != 1 {
			r.complain(n, "a verdict is one of mark, queue or reject-with here")
			return v
		}
		var ok bool
		kind, at = entries[0].name, entries[0].value
		if argument, ok = r.scalar(at, kind); !ok {
			return v
		}
	} else {
		text, ok := r.scalar(n, "a verdict")
		if !ok {
			return v
		}
		kind, argument, _ = strings.Cut(strings.TrimSpace(text), " ")
		argument = strings.TrimSpace(argument)
	}
	v, err := parseVerdict(kind, argument)
	if err != nil {
		r.complain(at, "%v", err)
	}
	return v
}

func parseVerdict(kind, argument string) (v Verdict, err error) {
	switch kind {
	case "accept", "drop", "reject":
		v.Kind = Kind(slices.Index(kindNames[:], kind))
		if argument != "" {
			return v, fmt.Errorf("%s takes nothing; did you mean reject-with %s?", kind, argument)
		}
	case "reject-with":
		v.Kind = Reject
		i := slices.Index(answerNames[:], argument)
		if i <= 0 {
			return v, fmt.Errorf("%q is no way to reject%s; there are %s", argument, suggest(argument, answerNames[1:]), strings.Join(answerNames[1:], ", "))
		}
		v.Answer = Answer(i)
	case "mark":
		v.Kind = Mark
		mark, mask, hasMask := strings.Cut(argument, "/")
		m, err := strconv.ParseUint(mark, 0, 32)
		v.Mark, v.Mask = uint32(m), ^uint32(0)
		if hasMask && err == nil {
			m, err = strconv.ParseUint(mask, 0, 32)
			v.Mask = uint32(m)
		}
		if err != nil {
			return v, fmt.Errorf("%q is no mark: write 0x10 or 0x10/0xff, up to 32 bits", argument)
		}
		if v.Mark&^v.Mask != 0 {
			return v, fmt.Errorf("mark %#x has bits outside of its mask %#x", v.Mark, v.Mask)
		}
	case "queue":
		v.Kind = Queue
		q, err := strconv.ParseUint(argument, 10, 16)
		if err != nil {
			return v, fmt.Errorf("%q is no queue: write queue 3, up to 65535", argument)
		}
		v.Queue = uint16(q)
	default:
		names := []string{"accept", "drop", "reject", "reject-with", "mark", "queue"}
		hint := suggest(kind, names)
		if hint == "" {
			hint = "; there are " + strings.Join(names, ", ")
		}
		return v, fmt.Errorf("%q is no verdict%s", kind, hint)
	}
	return v, nil
}

func (r *reader) defaultVerdict(s *Set, n ast.Node) {
	if _, isMap := n.(*ast.MappingNode); isMap {
		if entries, _ := r.mapping(n, "default"); len(entries) > 0 && slices.ContainsFunc(entries, func(e entry) bool { return e.name == "verdict" }) {
			by := r.known(entries, "default", "verdict", "log")
			s.verdict = r.verdict(by["verdict"].value)
			if e, ok := by["log"]; ok {
				s.log = r.boolean(e.value, "log")
			}
			return
		}
	}
	s.verdict = r.verdict(n)
}
