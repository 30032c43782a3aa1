package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"inquest/inspect/rule"
)

// maxFile bounds what is read of a rule file; package rule takes less.
const maxFile = 64 << 20

// ParseConfig reads the section "daemon" of a rule file and checks it; name is what
// errors call the file. The error is a [*rule.Error] with all that is wrong.
func ParseConfig(name string, data []byte) (*Config, error) {
	body, err := rule.Document(name, data)
	if err != nil {
		return nil, err
	}
	node, at := daemonNode(body)
	var s section
	s.decode(node, at)
	s.check(node)
	if len(s.problems) > 0 {
		return nil, &rule.Error{File: name, Problems: sorted(s.problems)}
	}
	return &s.config, nil
}

// sorted puts problems in the file's order.
func sorted(list []rule.Problem) []rule.Problem {
	slices.SortStableFunc(list, func(a, b rule.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(list)
}

// daemonNode finds the section; without one it returns where it could be.
func daemonNode(body ast.Node) (node ast.Node, at rule.Problem) {
	at = rule.Problem{Line: 1, Column: 1}
	if m, ok := body.(ast.MapNode); ok {
		for it := m.MapRange(); it.Next(); {
			if keyText(it.Key()) == "daemon" {
				return it.Value(), place(it.Key())
			}
		}
	}
	return nil, at
}

// check looks at what settings say together.
func (s *section) check(node ast.Node) {
	c := &s.config
	complain := func(format string, args ...any) {
		at := rule.Problem{Line: 1, Column: 1}
		if node != nil {
			at = place(node)
		}
		at.Message = fmt.Sprintf(format, args...)
		s.problems = append(s.problems, at)
	}
	if len(c.Pin) > c.Queues.Count {
		complain("pin names %d CPUs for %d queues", len(c.Pin), c.Queues.Count)
	}
	if c.PProf && c.Metrics == "" {
		complain("pprof is served where metrics are: set metrics too")
	}
}

// YAML returns the configuration as the section that would make it, with every setting.
func (c *Config) YAML() string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "  %s: %v\n", key, value) }
	b.WriteString("daemon:\n")
	line("queues", c.Queues)
	line("fail", c.Fail)
	line("hooks", flowList(c.Hooks))
	line("priority", c.Priority)
	line("table", c.Table)
	line("carve_out", c.CarveOut)
	line("shortcut", c.Shortcut)
	line("mark", fmt.Sprintf("%#x", uint32(c.Mark)))
	line("on_exit", map[bool]string{false: "remove", true: "keep"}[c.Keep])
	b.WriteString("  exclude:\n")
	line("  interfaces", flowList(c.Exclude.Interfaces))
	line("  networks", flowList(c.Exclude.Networks))
	line("  ports", flowList(c.Exclude.Ports))
	line("length", c.Length)
	line("copy", sizeText(int64(c.Copy)))
	line("gso", c.GSO)
	line("fanout", c.Fanout)
	line("pin", flowList(c.Pin))
	line("max_delay", c.MaxDelay)
	line("read_buffer", sizeText(int64(c.ReadBuffer)))
	b.WriteString("  flows:\n")
	line("  max", c.Flows.Max)
	line("  memory", sizeText(c.Flows.Memory))
	line("metrics", fmt.Sprintf("%q", c.Metrics))
	line("pprof", c.PProf)
	line("socket", fmt.Sprintf("%q", c.Socket))
	b.WriteString("  log:\n")
	line("  format", map[bool]string{false: "text", true: "json"}[c.Log.JSON])
	line("  level", strings.ToLower(c.Log.Level.String()))
	line("  rate", c.Log.Rate)
	return b.String()
}

// flowList writes a sequence on one line.
func flowList[T any](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = fmt.Sprint(v)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

func (q Queues) String() string {
	if q.Count == 1 {
		return fmt.Sprint(q.First)
	}
	return fmt.Sprintf("%d-%d", q.First, int(q.First)+q.Count-1)
}

func (p Port) String() string {
	return fmt.Sprintf("%s/%d", protocolNames[protocol(p.Protocol)], p.Number)
}
