package verdict

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/bits"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"golang.org/x/sys/unix"

	"inquest/inspect/rule"
	"inquest/internal/spelling"
)

// failHelp is said to those who leave the choice open.
const failHelp = `say what becomes of packets when the daemon is not running, does not keep up or fails:
"fail: open" lets them pass uninspected, "fail: closed" drops them; there is no default`

// section decodes the mapping under "daemon".
type section struct {
	config   Config
	problems []rule.Problem
}

// keys are what the section may say. Each function sets one thing, or reports what is
// wrong with the value.
var keys = map[string]func(s *section, v ast.Node){
	"queues":      (*section).queues,
	"fail":        (*section).fail,
	"hooks":       (*section).hooks,
	"priority":    func(s *section, v ast.Node) { s.config.Priority = int32(s.number(v, math.MinInt32, math.MaxInt32)) },
	"table":       (*section).table,
	"carve_out":   (*section).carveOut,
	"shortcut":    func(s *section, v ast.Node) { s.config.Shortcut = s.boolean(v) },
	"mark":        (*section).mark,
	"on_exit":     func(s *section, v ast.Node) { s.config.Keep = s.choice(v, "remove", "keep") == 1 },
	"exclude":     func(s *section, v ast.Node) { s.mapping(v, excludeKeys) },
	"length":      func(s *section, v ast.Node) { s.config.Length = uint32(s.number(v, 1, 1<<24)) },
	"copy":        func(s *section, v ast.Node) { s.config.Copy = uint32(s.size(v, 0, 0xffff)) },
	"gso":         func(s *section, v ast.Node) { s.config.GSO = s.boolean(v) },
	"fanout":      func(s *section, v ast.Node) { s.config.Fanout = s.boolean(v) },
	"pin":         (*section).pin,
	"max_delay":   func(s *section, v ast.Node) { s.config.MaxDelay = s.duration(v, 0, 100*time.Millisecond) },
	"read_buffer": func(s *section, v ast.Node) { s.config.ReadBuffer = int(s.size(v, 64<<10, 1<<30)) },
	"flows":       func(s *section, v ast.Node) { s.mapping(v, flowsKeys) },
	"metrics":     (*section).metrics,
	"pprof":       func(s *section, v ast.Node) { s.config.PProf = s.boolean(v) },
	"socket":      func(s *section, v ast.Node) { s.config.Socket = s.text(v) },
	"log":         func(s *section, v ast.Node) { s.mapping(v, logKeys) },
}

var excludeKeys = map[string]func(s *section, v ast.Node){
	"interfaces": (*section).interfaces,
	"networks":   (*section).networks,
	"ports":      (*section).ports,
}

var flowsKeys = map[string]func(s *section, v ast.Node){
	"max":    func(s *section, v ast.Node) { s.config.Flows.Max = int(s.number(v, 16, 1<<26)) },
	"memory": func(s *section, v ast.Node) { s.config.Flows.Memory = s.size(v, 1<<20, 1<<40) },
}

var logKeys = map[string]func(s *section, v ast.Node){
	"format": func(s *section, v ast.Node) { s.config.Log.JSON = s.choice(v, "text", "json") == 1 },
	"level":  (*section).logLevel,
	"rate":   func(s *section, v ast.Node) { s.config.Log.Rate = int(s.number(v, 0, 1<<20)) },
}

// decode takes the node of the section, nil if the file has none, and where its key is,
// or would be missed.
func (s *section) decode(node ast.Node, at rule.Problem) {
	s.config = defaults()
	failSaid := false
	if node != nil {
		s.mapping(node, keys)
		if m, ok := node.(ast.MapNode); ok {
			for it := m.MapRange(); it.Next(); {
				failSaid = failSaid || keyText(it.Key()) == "fail"
			}
		}
	}
	if !failSaid {
		at.Message = "daemon.fail is missing: " + failHelp
		s.problems = append(s.problems, at)
	}
}

func (s *section) problem(node ast.Node, format string, args ...any) {
	p := place(node)
	p.Message = fmt.Sprintf(format, args...)
	s.problems = append(s.problems, p)
}

// place is where a node begins.
func place(node ast.Node) rule.Problem {
	if m, ok := node.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		node = m.Values[0].Key
	} else if m, ok := node.(*ast.MappingValueNode); ok {
		node = m.Key
	}
	pos := node.GetToken().Position
	return rule.Problem{Line: pos.Line, Column: pos.Column}
}

func keyText(key ast.Node) string { return key.GetToken().Value }

// mapping decodes each value by its key.
func (s *section) mapping(node ast.Node, keys map[string]func(*section, ast.Node)) {
	if _, empty := node.(*ast.NullNode); empty {
		return
	}
	m, ok := node.(ast.MapNode)
	if !ok {
		s.problem(node, "expected a mapping of %s", strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		return
	}
	for it := m.MapRange(); it.Next(); {
		key := keyText(it.Key())
		set := keys[key]
		if set == nil {
			known := slices.Sorted(maps.Keys(keys))
			hint := "; there are " + strings.Join(known, ", ")
			if near := spelling.Closest(key, known); len(near) > 0 {
				hint = spelling.DidYouMean(near)
			}
			s.problem(it.Key(), "there is no setting %q%s", key, hint)
			continue
		}
		set(s, it.Value())
	}
}

// list calls f with each entry of a sequence, or with a single value as if it were one.
func (s *section) list(node ast.Node, f func(ast.Node)) {
	switch n := node.(type) {
	case *ast.NullNode:
	case *ast.SequenceNode:
		for _, v := range n.Values {
			f(v)
		}
	default:
		f(node)
	}
}

func (s *section) text(node ast.Node) string {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value
	case *ast.NullNode:
		return ""
	}
	s.problem(node, "expected a word or a number")
	return ""
}

func (s *section) boolean(node ast.Node) bool {
	b, ok := node.(*ast.BoolNode)
	if !ok {
		s.problem(node, "expected true or false")
		return false
	}
	return b.Value
}

func (s *section) number(node ast.Node, least, most int64) int64 {
	n, err := strconv.ParseInt(s.text(node), 0, 64)
	if err != nil || n < least || n > most {
		s.problem(node, "expected a number from %d to %d", least, most)
		return least
	}
	return n
}

var sizePattern = regexp.MustCompile(`^(\d+) ?(|KiB|MiB|GiB)$`)

// size takes bytes: "512", "64KiB".
func (s *section) size(node ast.Node, least, most int64) int64 {
	if m := sizePattern.FindStringSubmatch(s.text(node)); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		shift := map[string]uint{"KiB": 10, "MiB": 20, "GiB": 30}[m[2]]
		if err == nil && n <= math.MaxInt64>>shift && n<<shift >= least && n<<shift <= most {
			return n << shift
		}
	}
	s.problem(node, "expected a size in bytes, KiB, MiB or GiB, from %s to %s", sizeText(least), sizeText(most))
	return least
}

// sizeText is the way in which [section.size] reads it.
func sizeText(n int64) string {
	for _, unit := range []struct {
		name  string
		shift uint
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n >= 1<<unit.shift && n&(1<<unit.shift-1) == 0 {
			return strconv.FormatInt(n>>unit.shift, 10) + unit.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func (s *section) duration(node ast.Node, least, most time.Duration) time.Duration {
	d, err := time.ParseDuration(s.text(node))
	if err != nil || d < least || d > most {
		s.problem(node, "expected a time from %v to %v, such as 500us", least, most)
		return least
	}
	return d
}

// choice returns the index of the word that was chosen.
func (s *section) choice(node ast.Node, words ...string) int {
	i := slices.Index(words, s.text(node))
	if i < 0 {
		s.problem(node, "expected %s", strings.Join(words, " or "))
		return 0
	}
	return i
}

// queues takes "3" or "0-3".
func (s *section) queues(node ast.Node) {
	first, last, ranged := strings.Cut(s.text(node), "-")
	if !ranged {
		last = first
	}
	a, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	b, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if err1 != nil || err2 != nil || a > b || b-a >= maxQueues {
		s.problem(node, "expected a queue's number or a range of at most %d of them, such as 0-3", maxQueues)
		return
	}
	s.config.Queues = Queues{First: uint16(a), Count: int(b-a) + 1}
}

// maxQueues bounds the workers: each has a goroutine, a socket and buffers.
const maxQueues = 256

func (s *section) fail(node ast.Node) {
	switch word := s.text(node); word {
	case "open":
		s.config.Fail = FailOpen
	case "closed":
		s.config.Fail = FailClosed
	default:
		s.problem(node, "%q is neither open nor closed: %s", word, failHelp)
	}
}

func (s *section) hooks(node ast.Node) {
	s.config.Hooks = nil
	s.list(node, func(n ast.Node) {
		name := s.text(n)
		for hook, is := range hookNames {
			if is == name && !slices.Contains(s.config.Hooks, hook) {
				s.config.Hooks = append(s.config.Hooks, hook)
				return
			}
		}
		s.problem(n, "expected input, forward or output, each once")
	})
	if len(s.config.Hooks) == 0 {
		s.problem(node, "expected a list of input, forward, output")
	}
}

// tableName is narrower than what the kernel takes: the name becomes part of the names
// of iptables' chains, which have at most 28 characters.
var tableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,18}$`)

func (s *section) table(node ast.Node) {
	if s.config.Table = s.text(node); !tableName.MatchString(s.config.Table) {
		s.problem(node, "expected a name of at most 19 letters, digits, - and _")
	}
}

func (s *section) carveOut(node ast.Node) {
	s.config.CarveOut = CarveOut(s.choice(node, "auto", "always", "never"))
}

func (s *section) mark(node ast.Node) {
	m := uint32(s.number(node, 1, math.MaxUint32))
	if n := bits.OnesCount32(m); n < 4 || bits.Len32(m)-bits.TrailingZeros32(m) != n {
		s.problem(node, "expected a mask of four or more neighbouring bits, such as 0xf0000000")
		return
	}
	s.config.Mark = Mark(m)
}

func (s *section) pin(node ast.Node) {
	s.list(node, func(n ast.Node) { s.config.Pin = append(s.config.Pin, int(s.number(n, 0, 1<<16))) })
}

// interfaceName is what the kernel allows (dev_valid_name), less what nft or a shell
// would not take as it is.
var interfaceName = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,15}$|^[A-Za-z0-9_.@-]{1,14}\+$`)

func (s *section) interfaces(node ast.Node) {
	s.list(node, func(n ast.Node) {
		name := s.text(n)
		if !interfaceName.MatchString(name) {
			s.problem(n, "expected the name of an interface, such as lo, or its beginning and a +, such as wg+")
			return
		}
		s.config.Exclude.Interfaces = append(s.config.Exclude.Interfaces, name)
	})
}

func (s *section) networks(node ast.Node) {
	s.list(node, func(n ast.Node) {
		text := s.text(n)
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			addr, err = netip.ParseAddr(text)
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if err != nil || prefix.Addr().Zone() != "" || prefix.Addr().Is4In6() {
			s.problem(n, "expected an address or a prefix, such as 192.0.2.0/24")
			return
		}
		if prefix != prefix.Masked() {
			s.problem(n, "%s has bits beyond its length; did you mean %s?", prefix, prefix.Masked())
			return
		}
		s.config.Exclude.Networks = append(s.config.Exclude.Networks, prefix)
	})
}

// portProtocols are the words before the slash.
var portProtocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

func (s *section) ports(node ast.Node) {
	s.list(node, func(n ast.Node) {
		name, number, _ := strings.Cut(s.text(n), "/")
		protocol, known := portProtocols[name]
		p, err := strconv.ParseUint(number, 10, 16)
		if !known || err != nil || p == 0 {
			s.problem(n, "expected a port, such as tcp/22")
			return
		}
		s.config.Exclude.Ports = append(s.config.Exclude.Ports, Port{protocol, uint16(p)})
	})
}

func (s *section) metrics(node ast.Node) {
	s.config.Metrics = s.text(node)
	if s.config.Metrics == "" {
		return
	}
	if _, port, err := net.SplitHostPort(s.config.Metrics); err != nil || port == "" {
		s.problem(node, "expected an address to listen on, such as 127.0.0.1:9404")
	}
}

func (s *section) logLevel(node ast.Node) {
	s.config.Log.Level = []slog.Level{slog.LevelInfo, slog.LevelDebug, slog.LevelWarn, slog.LevelError}[s.choice(node, "info", "debug", "warn", "error")]
}
