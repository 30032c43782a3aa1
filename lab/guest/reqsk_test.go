//go:build linux

package guest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// tcpTable is /proc/net/tcp with a listener, an established and a half-open connection.
const tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000     0        0 1234 1 ffff9271801d4000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:4E2A 01 00000000:00000000 00:00000000 00000000     0        0 0 1 ffff9271801d4900 20 4 0 10 -1
   2: 0100007F:1F91 0200090A:4E2B 03 00000000:00000000 01:00000064 00000000     0        0 0 0 ffff927180d143a8
   3: 0100007F:1F91 0100007F:4E2C 03 00000000:00000000 01:00000064 00000000     0        0 0 0 00000000a1b2c3d4
   4: 0100007F:1F91 0100007F:4E2D 03 00000000:00000000 01:00000064 00000000     0        0 0 0 (____ptrval____)
`

func TestParseHalfOpens(t *testing.T) {
	got, err := parseHalfOpens(tcpTable)
	if err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddrPort("127.0.0.1:8081")
	want := []halfOpen{
		{local, netip.MustParseAddrPort("10.9.0.2:20011"), 0xffff927180d143a8},
		{local, netip.MustParseAddrPort("127.0.0.1:20012"), 0}, // the address is hashed
		{local, netip.MustParseAddrPort("127.0.0.1:20013"), 0},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range []string{"head\n0: x y 03\n", strings.Replace(tcpTable, "0200090A", "0200", 1)} {
		if got, err := parseHalfOpens(bad); err == nil {
			t.Errorf("%.40q: %+v", bad, got)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"00000000000000000000000001000000:0050": "[::1]:80",
		"0000000000000000FFFF00000100007F:0050": "127.0.0.1:80", // an IPv4 client of an IPv6 socket
		"01:0050":                               "",
		"0100007F":                              "",
		"0100007F0100007F:0050":                 "",
	} {
		got, err := parseEndpoint(text)
		if want == "" && err == nil || want != "" && got.String() != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
}

func TestParseSlab(t *testing.T) {
	const text = `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor>
request_sock_TCPv6      0      0    312   13    1 : tunables    0    0    0 : slabdata      0      0      0
request_sock_TCP       80     91    312   13    1 : tunables    0    0    0 : slabdata      7      7      0
broken x y z
`
	got, err := parseSlab(text, "request_sock_TCP")
	if want := (slabCache{80, 312}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, cache := range []string{"broken", "none"} {
		if got, err := parseSlab(text, cache); err == nil {
			t.Errorf("%s: %+v", cache, got)
		}
	}
}

func TestSynAckPort(t *testing.T) {
	packet := func(version byte, header int, protocol byte, flags byte) []byte {
		b := make([]byte, header+20)
		b[0] = version<<4 | byte(header/4)&15
		b[9], b[6] = protocol, protocol
		b[header+2], b[header+3], b[header+13] = 0x4e, 0x2a, flags
		return b
	}
	for _, tt := range []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"IPv4", packet(4, 20, 6, 0x12), true},
		{"IPv4 with options", packet(4, 24, 6, 0x12), true},
		{"IPv6", packet(6, 40, 6, 0x52), true},
		{"a SYN", packet(4, 20, 6, 0x02), false},
		{"UDP", packet(4, 20, 17, 0x12), false},
		{"cut", packet(4, 20, 6, 0x12)[:33], false},
		{"nothing", nil, false},
	} {
		port, ok := synAckPort(tt.packet)
		if ok != tt.want || ok && port != 20010 {
			t.Errorf("%s: port %d, %t", tt.name, port, ok)
		}
	}
}
