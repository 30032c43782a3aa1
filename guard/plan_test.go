package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"inquest/advisory"
	"inquest/doctor/exposure"
)

// rule makes one of chain "c" as the kernel would tell it.
func rule(t *testing.T, family byte, chain string, handle uint64, comment string, list ...expr.Any) kernelRule {
	t.Helper()
	exprs, err := marshalled(list...)
	if err != nil {
		t.Fatal(err)
	}
	return kernelRule{chainKey: chainKey{family, "t", chain}, handle: handle, exprs: exprs, comment: comment}
}

func loadProtocol(protocol byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}}}
}

func TestPlan(t *testing.T) {
	queue := &expr.Queue{Num: 4, Total: 3, Flag: expr.QueueFlagBypass}
	jump := &expr.Verdict{Kind: expr.VerdictJump, Chain: "sub"}
	base := func(family byte, hook uint32) chain {
		return chain{chainKey: chainKey{family, "t", "c"}, base: true, hook: hook}
	}
	sub := chain{chainKey: chainKey{unix.NFPROTO_INET, "t", "sub"}}
	bound := sub
	bound.bound = true
	const output, input, postrouting = 3, 1, 4
	tests := []struct {
		name   string
		chains []chain
		rules  []kernelRule
		owned  bool
		want   State
		hooks  string
		costs  int
	}{
		{"output", []chain{base(unix.NFPROTO_INET, output)},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "c", 1, "", queue)}, false, Open, "output", 0},
		{"input", []chain{base(unix.NFPROTO_INET, input)},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "c", 1, "", queue)}, false, Harmless, "input", 0},
		{"postrouting, with a limit", []chain{base(unix.NFPROTO_IPV4, postrouting)},
			[]kernelRule{rule(t, unix.NFPROTO_IPV4, "c", 1, "", &expr.Limit{Rate: 1, Unit: expr.LimitTimeSecond}, queue)}, false, Open, "postrouting", 2},
		{"bridge", []chain{base(unix.NFPROTO_BRIDGE, output)},
			[]kernelRule{rule(t, unix.NFPROTO_BRIDGE, "c", 1, "", queue)}, false, Harmless, "output", 0},
		{"UDP", []chain{base(unix.NFPROTO_INET, output)},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "c", 1, "", append(loadProtocol(unix.IPPROTO_UDP), queue)...)}, false, Harmless, "output", 0},
		{"TCP", []chain{base(unix.NFPROTO_INET, output)},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "c", 1, "", append(loadProtocol(unix.IPPROTO_TCP), queue)...)}, false, Open, "output", 0},
		{"a chain that nothing leads to", []chain{sub},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "sub", 1, "", queue)}, false, Harmless, "", 0},
		{"jumped to", []chain{base(unix.NFPROTO_INET, output), sub},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "c", 1, "", jump), rule(t, unix.NFPROTO_INET, "sub", 2, "", queue)}, false, Open, "output", 0},
		{"a loop of jumps", []chain{base(unix.NFPROTO_INET, output), sub},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "c", 1, "", jump),
				rule(t, unix.NFPROTO_INET, "sub", 2, "", &expr.Verdict{Kind: expr.VerdictGoto, Chain: "sub"}),
				rule(t, unix.NFPROTO_INET, "sub", 3, "", queue)}, false, Open, "output", 0},
		{"a chain of one rule's", []chain{base(unix.NFPROTO_INET, output), bound},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "c", 1, "", jump), rule(t, unix.NFPROTO_INET, "sub", 2, "", queue)}, false, OutOfReach, "output", 0},
		{"an owner's table", []chain{base(unix.NFPROTO_INET, output)},
			[]kernelRule{rule(t, unix.NFPROTO_INET, "c", 1, "", queue)}, true, OutOfReach, "output", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &snapshot{chains: tt.chains, rules: tt.rules, owned: map[chainKey]bool{{tt.chains[0].family, "t", ""}: tt.owned}}
			points, changes, err := s.plan(true)
			if err != nil || len(points) != 1 {
				t.Fatalf("%+v, %v", points, err)
			}
			p := points[0]
			if p.State != tt.want || strings.Join(p.Hooks, " ") != tt.hooks || len(p.Costs) != tt.costs || p.Queues != "4-6" || !p.Bypass {
				t.Errorf("got %+v, want it %s from %q with %d costs", p, tt.want, tt.hooks, tt.costs)
			}
			if (p.Why == "") != (p.State == Open) {
				t.Errorf("%s because of %q", p.State, p.Why)
			}
			if want := map[bool]int{true: 1}[tt.want == Open]; len(changes) != want {
				t.Errorf("%d changes, want %d", len(changes), want)
			}
		})
	}
}

// What a plan adds is found again, as long as nothing gets between and the conditions
// stay what they are.
func TestPlanAgain(t *testing.T) {
	chains := []chain{{chainKey: chainKey{unix.NFPROTO_INET, "t", "c"}, base: true, hook: 3}}
	guarded := rule(t, unix.NFPROTO_INET, "c", 1, "", append(loadProtocol(unix.IPPROTO_TCP), &expr.Queue{Num: 1, Total: 1})...)
	s := &snapshot{chains: chains, rules: []kernelRule{guarded}}
	_, changes, err := s.plan(true)
	if err != nil || len(changes) != 1 {
		t.Fatal(changes, err)
	}
	// The kernel reads it, and tells it.
	carveOut, err := decodeRule(message{unix.NFPROTO_INET, nested(append(changes[0].attrs, netlink.Attribute{
		Type: unix.NFTA_RULE_HANDLE, Data: []byte{0, 0, 0, 0, 0, 0, 0, 2}})...)})
	if err != nil || !carveOut.ours() || carveOut.handle != 2 {
		t.Fatalf("%+v, %v", carveOut, err)
	}
	other := rule(t, unix.NFPROTO_INET, "c", 3, "", &expr.Counter{})
	changed := rule(t, unix.NFPROTO_INET, "c", 1, "", append(loadProtocol(unix.IPPROTO_SCTP+1), &expr.Queue{Num: 1, Total: 1})...)
	changed.exprs = append(slices.Clone(guarded.exprs[:1]), guarded.exprs[2:]...)
	tests := []struct {
		name    string
		rules   []kernelRule
		want    State
		changes int
	}{
		{"right before it", []kernelRule{carveOut, guarded}, Shielded, 0},
		{"behind another", []kernelRule{other, carveOut, guarded}, Shielded, 0},
		{"one got between", []kernelRule{carveOut, other, guarded}, Open, 2},
		{"twice", []kernelRule{carveOut, carveOut, guarded}, Shielded, 1},
		{"behind it", []kernelRule{guarded, carveOut}, Open, 2},
		{"it has changed", []kernelRule{carveOut, changed}, Open, 2},
	}
	for _, tt := range tests {
		s := &snapshot{chains: chains, rules: tt.rules}
		points, changes, err := s.plan(true)
		if err != nil || points[0].State != tt.want || len(changes) != tt.changes {
			t.Errorf("%s: %+v with %d changes, %v; want it %s with %d", tt.name, points, len(changes), err, tt.want, tt.changes)
		}
	}
	// One that somebody else has made, for all SYN/ACKs.
	list := append(loadProtocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x12}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x12}}, &expr.Counter{})
	for _, verdict := range []expr.VerdictKind{expr.VerdictAccept, expr.VerdictReturn} {
		handmade := rule(t, unix.NFPROTO_INET, "c", 4, "", append(list, &expr.Verdict{Kind: verdict})...)
		s = &snapshot{chains: chains, rules: []kernelRule{handmade, other, guarded}}
		points, changes, err := s.plan(true)
		want := map[bool]State{true: Shielded, false: Open}[verdict == expr.VerdictAccept]
		if err != nil || points[0].State != want || len(changes) != map[bool]int{false: 1}[want == Shielded] {
			t.Errorf("behind a rule of verdict %d: %+v, %v", verdict, points, err)
		}
	}
	s = &snapshot{chains: chains, rules: []kernelRule{carveOut}}
	if _, changes, _ := s.plan(true); len(changes) != 1 || changes[0].kind != unix.NFT_MSG_DELRULE {
		t.Errorf("what shields nothing is not removed: %+v", changes)
	}
}

func TestXTablesErrors(t *testing.T) {
	for _, text := range []string{"-A OUTPUT -j DROP", "*filter\n-A OUTPUT -j DROP", "*filter\n:OUTPUT ACCEPT\n-A OUTPUT -m comment --comment \"x", "*filter\n:OUTPUT ACCEPT\n-A"} {
		if x, err := parseXTables(text); err == nil {
			t.Errorf("%q gave %+v", text, x)
		}
	}
}

func TestXTablesHandmade(t *testing.T) {
	for line, want := range map[string]State{
		"-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j ACCEPT":                                Shielded,
		`-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -m comment --comment "by hand" -j ACCEPT`: Shielded,
		"-p tcp -m tcp --tcp-flags SYN,RST SYN -j ACCEPT":                                    Open,
		"-s 10.0.0.1/32 -p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j ACCEPT":                 Open,
	} {
		x, err := parseXTables("*filter\n:OUTPUT ACCEPT\n-A OUTPUT " + line + "\n-A OUTPUT -j NFQUEUE --queue-num 0\nCOMMIT\n")
		if err != nil {
			t.Fatal(err)
		}
		if points, _ := x.plan(); points[0].State != want {
			t.Errorf("behind %s: %+v, want it %s", line, points, want)
		}
	}
}

// Conditions of iptables that no TCP passes, and such that all does.
func TestXTablesProtocol(t *testing.T) {
	tests := []struct {
		line string
		tcp  bool
		want string
	}{
		{"-p udp -j NFQUEUE", false, ""},
		{"! -p tcp -j NFQUEUE", false, ""},
		{"! -p udp -j NFQUEUE", true, "-p tcp"},
		{"-j NFQUEUE", true, "-p tcp"},
		{"-s 10.0.0.0/8 -o eth+ -j NFQUEUE", true, "-s 10.0.0.0/8 -o eth+ -p tcp"},
		{`-m string --string "-p udp" --algo bm -j NFQUEUE`, true, "-p tcp"},
		{"-m statistic --mode random --probability 0.5 -m mark --mark 0x1 -j NFQUEUE", true, "-p tcp"},
	}
	for _, tt := range tests {
		words, err := splitWords(tt.line)
		if err != nil {
			t.Fatal(err)
		}
		got, _, tcp := (&xrule{words: words}).conditions()
		if tcp != tt.tcp || !strings.HasPrefix(strings.Join(got, " "), tt.want) {
			t.Errorf("%s: %v, %q; want %v, %q", tt.line, tcp, got, tt.tcp, tt.want)
		}
		if strings.Contains(strings.Join(got, " "), "statistic") {
			t.Errorf("%s: %q leaves SYN/ACKs to chance", tt.line, got)
		}
	}
}

func TestNeeded(t *testing.T) {
	answer := func(s advisory.State, sure exposure.Sure) exposure.Answer {
		return exposure.Answer{Verdict: advisory.Verdict{State: s}, Sure: sure}
	}
	tests := []struct {
		answer exposure.Answer
		err    error
		want   bool
	}{
		{answer(advisory.Fixed, exposure.Code), nil, false},
		{answer(advisory.Fixed, exposure.File), nil, false},
		{answer(advisory.Fixed, exposure.Version), nil, true},
		{answer(advisory.Exposed, exposure.Code), nil, true},
		{answer(advisory.Undecided, exposure.Nothing), nil, true},
		{exposure.Answer{}, errors.New("no kernel"), true},
	}
	for _, tt := range tests {
		if got, why := Needed(tt.answer, tt.err); got != tt.want || why == "" {
			t.Errorf("%+v, %v: %v, %q", tt.answer, tt.err, got, why)
		}
	}
}

func TestReadHook(t *testing.T) {
	dir := t.TempDir()
	if _, err := readHook(filepath.Join(dir, "none")); !errors.Is(err, ErrNoHook) {
		t.Errorf("no module: %v", err)
	}
	for name, text := range map[string]string{"version": "1", "parameters/request_socks": "12", "parameters/timewait_socks": "0", "parameters/last_references": "3"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := readHook(dir); err != nil || h != (Hook{"1", 12, 0, 3}) {
		t.Errorf("%+v, %v", h, err)
	}
}

// DKMS tells versions apart by what its file says.
func TestModuleVersion(t *testing.T) {
	for name, want := range map[string]string{"inquest_guard.c": `MODULE_VERSION("1")`, "dkms.conf": `PACKAGE_VERSION="1"`} {
		if text, err := fs.ReadFile(Module(), name); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %s: %v", name, want, err)
		}
	}
}

// The errors name what is missing.
func TestBuildErrors(t *testing.T) {
	var missing *MissingError
	if _, err := build(t.Context(), "6.6.6", t.TempDir(), t.TempDir()); !errors.As(err, &missing) || !strings.Contains(err.Error(), "linux-headers-6.6.6") {
		t.Errorf("without headers: %v", err)
	}
	headers := t.TempDir()
	if err := os.WriteFile(filepath.Join(headers, "Makefile"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := build(t.Context(), "6.6.6", headers, t.TempDir()); !errors.As(err, &missing) || missing.What != "make" {
		t.Errorf("without make: %v", err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("PATH"), "make"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(headers, ".config"), []byte("CONFIG_CC_VERSION_TEXT=\"x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := build(t.Context(), "6.6.6", headers, t.TempDir()); !errors.As(err, &missing) || missing.Packages[0] != "gcc-14" {
		t.Errorf("without a compiler: %v", err)
	}
}

func TestLoadErrors(t *testing.T) {
	for errno, want := range map[error]error{
		unix.EEXIST: ErrHooked, unix.ENODEV: ErrNothingToHook, unix.EOPNOTSUPP: ErrUnknownKernel,
		unix.EBUSY: ErrNotHooked, unix.EIO: ErrNotHooked, unix.EPERM: ErrPermission,
	} {
		if err := loadError(errno); !errors.Is(err, want) {
			t.Errorf("%v became %v, want %v", errno, err, want)
		}
	}
}

func FuzzXTables(f *testing.F) {
	f.Add("*filter\n:OUTPUT ACCEPT [0:0]\n[1:2] -A OUTPUT -p tcp -m limit --limit 1/s -j NFQUEUE --queue-balance 1:2\nCOMMIT\n")
	f.Add("*mangle\n:a - [0:0]\n:POSTROUTING ACCEPT\n-A POSTROUTING -g a\n-A a ! -p udp -m comment --comment \"a \\\" b\" -j NFQUEUE\n")
	f.Fuzz(func(t *testing.T, text string) {
		commands, points, err := Commands("iptables", strings.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range points {
			if p.State == Open && len(commands) == 0 {
				t.Errorf("%+v is open, and nothing is to be done", p)
			}
		}
	})
}

func FuzzRule(f *testing.F) {
	exprs, err := marshalled(append(loadProtocol(unix.IPPROTO_TCP), &expr.Queue{Num: 1, Total: 2}, &expr.Verdict{Kind: expr.VerdictJump, Chain: "c"})...)
	if err != nil {
		f.Fatal(err)
	}
	var list []netlink.Attribute
	for _, e := range exprs {
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM, Data: nested(text(unix.NFTA_EXPR_NAME, e.name), netlink.Attribute{Type: unix.NFTA_EXPR_DATA, Data: e.data})})
	}
	f.Add([]byte(nested(text(unix.NFTA_RULE_TABLE, "t"), text(unix.NFTA_RULE_CHAIN, "c"),
		netlink.Attribute{Type: unix.NFTA_RULE_EXPRESSIONS, Data: nested(list...)}, netlink.Attribute{Type: unix.NFTA_RULE_USERDATA, Data: commentData("x")})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRule(message{unix.NFPROTO_INET, raw})
		if err != nil {
			return
		}
		s := &snapshot{chains: []chain{{chainKey: r.chainKey, base: true, hook: 3}}, rules: []kernelRule{r}}
		s.wantedSets()
		if _, _, err := s.plan(true); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkPlan(b *testing.B) {
	s := &snapshot{chains: []chain{{chainKey: chainKey{unix.NFPROTO_INET, "t", "c"}, base: true, hook: 3}}}
	exprs, err := marshalled(append(loadProtocol(unix.IPPROTO_TCP), &expr.Verdict{Kind: expr.VerdictAccept})...)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10000 {
		s.rules = append(s.rules, kernelRule{chainKey: chainKey{unix.NFPROTO_INET, "t", fmt.Sprint("c", i%100)}, handle: uint64(i), exprs: exprs})
	}
	for b.Loop() {
		if _, _, err := s.plan(true); err != nil {
			b.Fatal(err)
		}
	}
}
