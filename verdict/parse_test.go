package verdict

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"inquest/inspect/rule"
)

var compareConfigs = cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()}

func TestParseConfig(t *testing.T) {
	minimal := defaults()
	minimal.Fail = FailOpen
	full := Config{
		Queues: Queues{4, 4}, Fail: FailClosed, Hooks: []Hook{Forward}, Priority: -5, Table: "edge",
		CarveOut: CarveOutAlways, Shortcut: false, Mark: 0x1e, Keep: true,
		Exclude: Exclude{
			Interfaces: []string{"lo", "wg+"},
			Networks:   []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")},
			Ports:      []Port{{6, 22}, {17, 53}},
		},
		Length: 1024, Copy: 2048, GSO: false, Fanout: true, Pin: []int{1, 0}, MaxDelay: 500 * time.Microsecond,
		ReadBuffer: 4 << 20, Flows: Flows{1000, 64 << 20}, Metrics: "127.0.0.1:9404", PProf: true, Socket: "",
		Log: Log{JSON: true, Level: slog.LevelWarn, Rate: 0},
	}
	tests := []struct {
		name, text string
		want       Config
	}{
		{"what must be said", "daemon: {fail: open}\n", minimal},
		{"one setting a line", "default: accept\ndaemon:\n  fail: open\n", minimal},
		{"one value for a list", "daemon: {fail: open, hooks: [input, forward, output], pin: , exclude: {}}", minimal},
		{"everything", `
default: drop
daemon:
  queues: 4-7
  fail: closed
  hooks: [forward]
  priority: -5
  table: edge
  carve_out: always
  shortcut: false
  mark: 0x1e
  on_exit: keep
  exclude:
    interfaces: [lo, wg+]
    networks:
      - 192.0.2.0/24
      - 2001:db8::1
    ports: [tcp/22, udp/53]
  length: 1024
  copy: 2KiB
  gso: false
  fanout: true
  pin: [1, 0]
  max_delay: 500us
  read_buffer: 4MiB
  flows: {max: 1000, memory: 64MiB}
  metrics: 127.0.0.1:9404
  pprof: true
  socket: ""
  log: {format: json, level: warn, rate: 0}
rules: []
`, full},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseConfig("rules.yaml", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, *got, compareConfigs); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			again, err := ParseConfig("shown.yaml", []byte(got.YAML()))
			if err != nil {
				t.Fatalf("what YAML prints is refused: %v\n%s", err, got.YAML())
			}
			if diff := cmp.Diff(got, again, compareConfigs); diff != "" {
				t.Errorf("what YAML prints says something else: -want +got:\n%s", diff)
			}
		})
	}
}

func TestParseConfigProblems(t *testing.T) {
	tests := []struct {
		text string
		want []string // beginnings of "LINE:COLUMN: TEXT"
	}{
		{"default: accept\n", []string{"1:1: daemon.fail is missing: say what becomes of packets"}},
		{"default: accept\ndaemon:\n  queues: 1\n", []string{"2:1: daemon.fail is missing"}},
		{"daemon:\n", []string{"1:1: daemon.fail is missing"}},
		{"daemon: 3\n", []string{"1:1: daemon.fail is missing", "1:9: expected a mapping of carve_out, copy,"}},
		{"daemon:\n  fail: maybe\n", []string{"2:9: \"maybe\" is neither open nor closed: say what becomes of packets"}},
		{"daemon:\n  fail: open\n  queue: 3\n", []string{`3:3: there is no setting "queue"; did you mean queues?`}},
		{"daemon:\n  fail: open\n  queues: 3-1\n", []string{"3:11: expected a queue's number"}},
		{"daemon:\n  fail: open\n  queues: 0-65535\n", []string{"3:11: expected a queue's number"}},
		{"daemon:\n  fail: open\n  queues: 65536\n", []string{"3:11: expected a queue's number"}},
		{"daemon:\n  fail: open\n  queues: [1]\n", []string{"3:11: expected a word", "3:11: expected a queue's number"}},
		{"daemon:\n  fail: open\n  hooks: [input, input]\n", []string{"3:18: expected input, forward or output, each once"}},
		{"daemon:\n  fail: open\n  hooks: []\n", []string{"3:10: expected a list"}},
		{"daemon:\n  fail: open\n  mark: 0x5\n", []string{"3:9: expected a mask"}},
		{"daemon:\n  fail: open\n  mark: 0x7\n", []string{"3:9: expected a mask"}},
		{"daemon:\n  fail: open\n  copy: 1MiB\n", []string{"3:9: expected a size in bytes, KiB, MiB or GiB, from 0 to 65535"}},
		{"daemon:\n  fail: open\n  length: -1\n", []string{"3:11: expected a number from 1 to"}},
		{"daemon:\n  fail: open\n  gso: 1\n", []string{"3:8: expected true or false"}},
		{"daemon:\n  fail: open\n  max_delay: 1s\n", []string{"3:14: expected a time from 0s to 100ms"}},
		{"daemon:\n  fail: open\n  table: \"a; b\"\n", []string{"3:10: expected a name"}},
		{"daemon:\n  fail: open\n  exclude:\n    interfaces: [\"a b\"]\n", []string{"4:18: expected the name of an interface"}},
		{"daemon:\n  fail: open\n  exclude:\n    networks: [192.0.2.1/24]\n", []string{"4:16: 192.0.2.1/24 has bits beyond its length; did you mean 192.0.2.0/24?"}},
		{"daemon:\n  fail: open\n  exclude: {ports: [icmp/3, tcp, tcp/0]}\n", []string{"3:21: expected a port", "3:29: expected a port", "3:34: expected a port"}},
		{"daemon:\n  fail: open\n  pin: [0, 1]\n", []string{"2:3: pin names 2 CPUs for 1 queues"}},
		{"daemon:\n  fail: open\n  pprof: true\n", []string{"2:3: pprof is served where metrics are"}},
		{"daemon:\n  fail: open\n  metrics: 9404\n", []string{"3:12: expected an address"}},
		{"daemon:\n  fail: open\n  log: {level: loud, colour: red}\n", []string{"3:16: expected info or debug or warn or error", `3:22: there is no setting "colour"; there are format, level, rate`}},
		{"daemon: {fail: open\n", []string{"1:"}},
		{"daemon:\n\tfail: open\n", []string{"2:"}},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			_, err := ParseConfig("rules.yaml", []byte(test.text))
			var problems *rule.Error
			if !errors.As(err, &problems) {
				t.Fatalf("got error %v, want a *rule.Error", err)
			}
			if len(problems.Problems) != len(test.want) {
				t.Fatalf("got %v, want %q", problems.Problems, test.want)
			}
			for i, p := range problems.Problems {
				if !strings.HasPrefix(fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Message), test.want[i]) {
					t.Errorf("got %+v, want %q", p, test.want[i])
				}
			}
		})
	}
}

func TestExcerpt(t *testing.T) {
	text := "default: accept\ndaemon:\n  fail: open\n  lenght: 3\x1b[0m\n"
	e := &rule.Error{File: "rules.yaml", Problems: []rule.Problem{{Line: 4, Column: 3, Message: `there is no setting "lenght"`}, {Line: 9, Column: 1, Message: "too far"}}}
	want := `rules.yaml:4:3: there is no setting "lenght"
     4 |   lenght: 3·[0m
       |   ^

rules.yaml:9:1: too far
`
	if diff := cmp.Diff(want, Excerpt(e, []byte(text))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("daemon: {fail: open, queues: 0-3}"))
	f.Add([]byte((&Config{Hooks: []Hook{Input}, Mark: 15, Table: "a"}).YAML()))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("fuzz", data)
		if err != nil {
			var problems *rule.Error
			if !errors.As(err, &problems) || len(problems.Problems) == 0 {
				t.Fatalf("error %v is not a *rule.Error", err)
			}
			Excerpt(problems, data)
			return
		}
		again, err := ParseConfig("again", []byte(c.YAML()))
		if err != nil {
			t.Fatalf("%v\n%s", err, c.YAML())
		}
		if diff := cmp.Diff(c, again, compareConfigs); diff != "" {
			t.Error(diff)
		}
	})
}

// Verdicts that the daemon would take for its own doing are refused.
func TestParseConflicts(t *testing.T) {
	tests := []struct{ verdict, want string }{
		{"mark 0x10000000", "sets bits of the mark 0xf0000000"},
		{"mark 0x0fffffff", ""},
		{"queue 3", ""},
		{"queue 4", "one of the daemon's own"},
		{"queue 7", "one of the daemon's own"},
		{"queue 8", ""},
	}
	for _, test := range tests {
		text := "default: accept\ndaemon: {fail: open, queues: 4-7}\nrules:\n  - {name: a, when: true, verdict: " + test.verdict + "}\n"
		_, err := Parse("rules.yaml", []byte(text))
		problems, refused := Problems(err)
		if err != nil && !refused || refused != (test.want != "") {
			t.Errorf("%s: %v", test.verdict, err)
		} else if refused && (!strings.Contains(problems[0].Message, test.want) || problems[0].Line != 4) {
			t.Errorf("%s: %+v, want %q", test.verdict, problems, test.want)
		}
	}
}
