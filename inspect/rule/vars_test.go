package rule

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"inquest/inspect/app"
	"inquest/inspect/packet"
)

// TestVariables reads each variable where it is, and where it is not.
func TestVariables(t *testing.T) {
	tcp := tcpPacket("192.0.2.1:1001", "192.0.2.2:1002", packet.SYN|packet.PSH)
	p := tcp.Packet
	p.TTL, p.TOS, p.Len, p.Fragment = 61, 0xb9, 1500, true
	p.Options, p.Anomalies = packet.RouterAlert, packet.BadFlags|packet.BadAddress
	p.TCP.Seq, p.TCP.Window, p.TCP.MSS, p.Payload = 4000000000, 512, 1460, []byte("SSH")
	tcp = answer(tcp)
	tcp.Flow.In, tcp.Flow.Out = "eth0", "eth1"
	tcp.Flow.State, tcp.Flow.Packets, tcp.Flow.Bytes, tcp.Flow.Age = "established", 7, 9000, 5*time.Second
	tcp.Meta = &Meta{Mark: 0xf0000000, ConnMark: 3, Hook: 2, Queue: 4, In: "eth1", Out: "eth0", UID: 1000, GID: 100, HasUID: true}
	final(tcp, func(f *app.Facts) {
		*f = app.Facts{
			Proto: app.ProtoTLS, Gap: true, Known: f.Known, Final: f.Final,
			TLS:  app.TLSFacts{SNI: "a", ALPN: []string{"h2"}, Version: 0x304, JA4: "t", ECH: true, ServerVersion: 0x303, ServerCipher: 0x1301, ServerALPN: "h3"},
			QUIC: app.QUICFacts{SNI: "q", ALPN: []string{"h3"}, Version: 1, JA4: "u", ECH: true},
			HTTP: app.HTTPFacts{Method: "GET", Host: "h", Path: "/p", UserAgent: "ua", Status: 200},
			DNS:  app.DNSFacts{ID: 5, Response: true, EDNS: true, Names: []string{"n"}, Types: []string{"A"}, RCode: "NOERROR", Answers: []string{"192.0.2.9"}},
			SSH:  app.SSHFacts{Client: app.SSHBanner{Line: "l", Version: "v", Software: "s"}, Server: app.SSHBanner{Line: "L", Version: "V", Software: "S"}},
		}
	})
	udp := udpPacket("[2001:db8::1]:53", "[2001:db8::2]:54")
	sctp := transportPacket("192.0.2.1:7", "192.0.2.2:8", packet.ProtoSCTP)
	sctp.Packet.SCTP.Chunk = 1
	icmp := transportPacket("192.0.2.1:0", "192.0.2.2:0", packet.ProtoICMP)
	icmp.Packet.ICMP.Type, icmp.Packet.ICMP.Code = 3, 4

	final(icmp, nil)

	// In rules about flows, unless the condition begins with "packet:".
	tests := []struct {
		env  *Env
		when string
	}{
		{tcp, `ip.src == "192.0.2.1" && ip.dst == "192.0.2.2" && tcp.sport == 1001 && tcp.dport == 1002`},
		{tcp, `packet:ip.src == "192.0.2.2" && ip.dst == "192.0.2.1" && tcp.sport == 1002 && tcp.dport == 1001`},
		{tcp, `packet:flow.src == "192.0.2.1" && flow.dst == "192.0.2.2" && flow.sport == 1001 && flow.dport == 1002`},
		{tcp, `packet:th.sport == 1002 && th.dport == 1001`},
		{tcp, `ip.version == 4 && ip.proto == "tcp" && ip.ttl == 61 && ip.tos == 0xb9 && ip.dscp == 46 && ip.len == 1500 && ip.fragment`},
		{tcp, `ip.options == ["router-alert"] && ip.anomalies.size() == 2 && ip.anomalies[0] == "bad-flags" && ip.anomalies[1] == "bad-address"`},
		{tcp, `tcp.flags == 10 && tcp.syn && tcp.psh && !tcp.ack && !tcp.fin && !tcp.rst && !tcp.urg`},
		{tcp, `tcp.seq == 4000000000 && tcp.window == 512 && tcp.mss == 1460 && payload == b"SSH"`},
		{tcp, `flow.reply && flow.state == "established" && flow.packets == 7 && flow.bytes == 9000 && flow.age == "5s"`},
		{tcp, `meta.iifname == "eth0" && meta.oifname == "eth1"`},
		{tcp, `packet:meta.iifname == "eth1" && meta.oifname == "eth0"`},
		{tcp, `meta.hook == "forward" && meta.queue == 4 && meta.mark == 0xf0000000 && meta.connmark == 3 && meta.uid == 1000 && meta.gid == 100`},
		{tcp, `app.proto == "tls" && app.gap`},
		{tcp, `tls.sni == "a" && tls.alpn == ["h2"] && tls.version == 0x304 && tls.ja4 == "t" && tls.ech && tls.server_version == 0x303 && tls.server_cipher == 0x1301 && tls.server_alpn == "h3"`},
		{tcp, `quic.sni == "q" && quic.alpn == ["h3"] && quic.version == 1 && quic.ja4 == "u" && quic.ech`},
		{tcp, `http.method == "GET" && http.host == "h" && http.path == "/p" && http.user_agent == "ua" && http.status == 200`},
		{tcp, `dns.id == 5 && dns.response && dns.edns && dns.names == ["n"] && dns.types == ["A"] && dns.rcode == "NOERROR" && dns.answers == ["192.0.2.9"]`},
		{tcp, `ssh.client == "l" && ssh.client_version == "v" && ssh.client_software == "s" && ssh.server == "L" && ssh.server_version == "V" && ssh.server_software == "S"`},
		{udp, `ip.version == 6 && udp.sport == 53 && udp.dport == 54 && th.dport == 54 && ip.src == "2001:DB8::1"`},
		{sctp, `sctp.sport == 7 && sctp.dport == 8 && sctp.chunk == 1`},
		{icmp, `icmp.type == 3 && icmp.code == 4 && ip.options == [] && tls.sni.size() == 0`},
	}
	read := map[string]bool{}
	v := words(t)
	for _, test := range tests {
		text, perPacket := strings.CutPrefix(test.when, "packet:")
		condition, complaints := v.check(text)
		if len(complaints) > 0 {
			t.Errorf("%s: %v", text, complaints)
			continue
		}
		c := &compiler{vocabulary: v, checked: condition}
		vars, _ := c.uses(condition.root)
		for _, v := range vars {
			read[v.Name] = true
		}
		at := asFlow
		if perPacket {
			at = asPacket
		}
		m := machineFor(test.env, at)
		for _, part := range strings.Split(text, " && ") { // name the part that fails
			part, _ := v.check(part)
			c := &compiler{vocabulary: v, checked: part}
			compiled, err := c.cond(part.root, exact)
			if err != nil {
				t.Fatal(err)
			}
			if is := compiled.eval(m); is != yes {
				t.Errorf("%s: a part is %d (%v)", text, is, part.root)
			}
		}
	}
	for _, v := range Variables() {
		if !read[v.Name] {
			t.Errorf("no test reads %s", v.Name)
		}
		if v.Doc == "" || v.Type == "" {
			t.Errorf("%s has no description or type", v.Name)
		}
	}

	absentIn := map[*Env][]string{
		tcp:  {"udp.sport", "udp.dport", "sctp.sport", "sctp.dport", "sctp.chunk", "icmp.type", "icmp.code"},
		udp:  {"tcp.sport", "tcp.dport", "tcp.flags", "tcp.syn", "tcp.seq", "tcp.window", "tcp.mss", "icmp.type", "sctp.chunk", "meta.uid", "meta.gid"},
		icmp: {"th.sport", "th.dport", "tcp.dport", "udp.dport", "flow.sport", "flow.dport", "tcp.ack"},
	}
	for env, names := range absentIn {
		for _, name := range names {
			v := variables().byName[name]
			is := no
			m := machineFor(env, asFlow)
			if v.cond != nil {
				is = v.cond(m)
			} else {
				_, is = v.num(m)
			}
			if is != absent {
				t.Errorf("protocol %d: %s is %d, want absent", env.Packet.Proto, name, is)
			}
		}
	}
}

// TestLaterFragment: ports are in the first part of a datagram only.
func TestLaterFragment(t *testing.T) {
	e := udpPacket("192.0.2.1:0", "192.0.2.2:0")
	e.Packet.HasTransport, e.Packet.Fragment, e.Packet.FragmentOffset = false, true, 1480
	e.Flow.Tuple = e.Packet.Tuple()
	for _, at := range []view{asFlow, asPacket, asReverse} {
		for _, name := range []string{"udp.dport", "th.sport", "flow.dport"} {
			if _, is := variables().byName[name].num(machineFor(e, at)); is != absent {
				t.Errorf("%s is %d in view %d, want absent", name, is, at)
			}
		}
	}
}

func TestDescribeJSON(t *testing.T) {
	s := load(t, `
default: drop
rules:
  - {name: a, when: tcp.dport == 80 && ip.ttl < 5, verdict: mark 3/0xf, rate: over 3/min, per: src, scope: packet, log: {level: warn}}
`)
	got, err := json.Marshal(s.Describe())
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"name":"a","when":"tcp.dport == 80 \u0026\u0026 ip.ttl \u003c 5","verdict":"mark 0x3/0xf","log":{"on":true,"level":"WARN"},` +
		`"rate":"over 3/min burst 5 per src","per_packet":true,"line":4,"index":"destination port","shared":1,"keeps_queued":["ip.ttl","scope","rate"]}]`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if s.Default().Kind != Drop || s.Pending().Kind != Accept || s.Patterns().Len() != 0 {
		t.Errorf("default %v, pending %v, %d patterns", s.Default(), s.Pending(), s.Patterns().Len())
	}
}

func TestVerdictText(t *testing.T) {
	for _, text := range []string{"accept", "drop", "reject", "reject-with tcp-reset", "reject-with icmp-net-unreachable", "reject-with icmp-host-unreachable",
		"reject-with icmp-port-unreachable", "reject-with icmp-admin-prohibited", "mark 0x1", "mark 0x10/0xf0", "queue 65535"} {
		kind, argument, _ := strings.Cut(text, " ")
		v, err := parseVerdict(kind, argument)
		if err != nil || v.String() != text {
			t.Errorf("%q is read as %q (%v)", text, v, err)
		}
	}
	if got := []string{Kind(9).String(), Answer(9).String(), Share(9).String()}; !slices.Equal(got, []string{"verdict 9", "answer 9", "9"}) {
		t.Errorf("unknown ones are %q", got)
	}
}
