package console

import "testing"

func TestParseFrame(t *testing.T) {
	tests := []struct {
		line string
		want Frame // zero: no frame
	}{
		{" tcp_v4_rcv+0x1a/0x30", Frame{Symbol: "tcp_v4_rcv", Offset: 0x1a, Size: 0x30}},
		{" ? tcp_v4_rcv+0x1a/0x30 [mod]", Frame{Symbol: "tcp_v4_rcv", Offset: 0x1a, Size: 0x30, Module: "mod", Guess: true}},
		{" f.isra.0+0x1a/0x30 [mod 0123456789abcdef0123456789abcdef01234567]", Frame{Symbol: "f.isra.0", Offset: 0x1a, Size: 0x30, Module: "mod"}},
		{"[<ffffffff8104a3c1>] f+0x81/0xc0", Frame{Symbol: "f", Offset: 0x81, Size: 0xc0, Addr: 0xffffffff8104a3c1}},
		{"[<ffffffff8104a3c1>] ? f+0x81/0xc0", Frame{Symbol: "f", Offset: 0x81, Size: 0xc0, Addr: 0xffffffff8104a3c1, Guess: true}},
		{"[c000000002b7fb10] [c0000000001b5a2c] .do_exit+0x68/0xf0 (unreliable)", Frame{Symbol: ".do_exit", Offset: 0x68, Size: 0xf0, Addr: 0xc0000000001b5a2c, Guess: true}},
		{"([<000000000012bb5e>] show_stack+0x5e/0x90)", Frame{Symbol: "show_stack", Offset: 0x5e, Size: 0x90, Addr: 0x12bb5e, Guess: true}},
		{"f+0x1a/0x30 net/ipv4/tcp_ipv4.c:1234", Frame{Symbol: "f", Offset: 0x1a, Size: 0x30, File: "net/ipv4/tcp_ipv4.c:1234"}},
		{"f net/ipv4/tcp_ipv4.c:1234 [inline]", Frame{Symbol: "f", Inline: true, File: "net/ipv4/tcp_ipv4.c:1234"}},
		{"0xffffffffc0123456", Frame{Addr: 0xffffffffc0123456}},
		{"f+0x1a", Frame{Symbol: "f", Offset: 0x1a}},
		{"<core::option::Option<T> as Try>::branch+0x4/0x8", Frame{Symbol: "<core::option::Option<T> as Try>::branch", Offset: 4, Size: 8}},
		{"RIP: 0010:f+0x1a/0x30", Frame{}},
		{"pc : f+0x1a/0x30", Frame{}},
		{"#0: ffff888 (lock){+.+.}, at: f+0x1a/0x30", Frame{}},
		{"hardirqs last enabled at (1): [<ffffffff8104a3c1>] f+0x1/0x2", Frame{}},
		{"+0x1/0x2", Frame{}},
		{"f+0x", Frame{}},
		{"[<xyz>] f+0x1/0x2", Frame{}},
		{"", Frame{}},
	}
	for _, tt := range tests {
		got, ok := ParseFrame(tt.line)
		if !ok {
			got = Frame{}
		}
		if got != tt.want || ok != (tt.want != Frame{}) {
			t.Errorf("ParseFrame(%q)\n got %+v, %v\nwant %+v", tt.line, got, ok, tt.want)
		}
	}
}

func TestBase(t *testing.T) {
	for symbol, want := range map[string]string{
		"tcp_v4_rcv": "tcp_v4_rcv", "f.isra.0": "f", "f.constprop.0.cold": "f", "f.part.12": "f", ".do_exit": "do_exit", "": "",
		"<a::B as c.d>::e": "<a::B as c.d>::e",
		"_RNvMs3_NtCshgDM7dBCdno_11rust_binder7processNtB5_7Process10update_ref": "rust_binder::process::Process::update_ref",
		"_R9": "_R9", "_RNvC99999999999999999999x": "_RNvC99999999999999999999x",
	} {
		if got := Base(symbol); got != want {
			t.Errorf("Base(%q) = %q, want %q", symbol, got, want)
		}
	}
}
