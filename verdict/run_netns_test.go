//go:build netns

package verdict

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// names are rules by what an application asks for.
const names = `
default: accept
rules:
  - name: no ads
    when: tls.sni.endsWith(".ads.example")
    verdict: reject
    log: true
  - name: no sea
    when: http.host == "sea.example"
    verdict: drop
  - name: no bad names
    when: dns.names.exists(n, n == "bad.example")
    verdict: drop
`

// checkNames holds traffic against these rules.
func checkNames(t *testing.T, client *namespace, server string) {
	t.Helper()
	for _, scheme := range []string{"http", "https"} {
		body, err := client.get(server, scheme, "www.example", "/", patience)
		if err != nil || body != "this is www.example" {
			t.Errorf("%s://www.example: %q, %v", scheme, body, err)
		}
	}
	if _, err := client.get(server, "https", "x.ads.example", "/", patience); !isReset(err) {
		t.Errorf("https://x.ads.example: %v, want a reset", err)
	}
	if body, err := client.get(server, "http", "x.ads.example", "/", patience); err != nil {
		t.Errorf("http://x.ads.example: %q, %v", body, err)
	}
	if _, err := client.get(server, "http", "sea.example", "/", brief); !isTimeout(err) {
		t.Errorf("http://sea.example: %v, want a timeout", err)
	}
	if err := client.lookup(server, "good.example", patience); err != nil {
		t.Errorf("good.example: %v", err)
	}
	if err := client.lookup(server, "bad.example", brief); !isTimeout(err) {
		t.Errorf("bad.example: %v, want a timeout", err)
	}
}

func TestNamesNetns(t *testing.T) {
	client, server := pair(t)
	server.serve(t)
	d := server.run(t, "fail: closed\nhooks: [input, output]", names)
	for _, addr := range []string{"10.99.0.2", "fd99::2"} {
		checkNames(t, client, addr)
	}
	s := d.status()
	t.Logf("installed by %s; carve-out: %t, %s", s.Installed, s.CarveOut, s.CarveOutWhy)
	for name, least := range map[string]uint64{"no ads": 2, "no sea": 2, "no bad names": 2} {
		if r := s.rule(name); r.Packets < least {
			t.Errorf("rule %s decided %d packets, want %d at least", name, r.Packets, least)
		}
	}
	if s.Installed == "" || s.Packets.Panics+s.Packets.Returned > 0 || s.Flows.Left == 0 {
		t.Errorf("status: %+v", s)
	}
	if log := d.logged(); !strings.Contains(log, "sni=x.ads.example") || !strings.Contains(log, `rule="no ads"`) {
		t.Errorf("the log does not tell of the rejected flow:\n%s", log)
	}

	// A flow that is decided leaves the queue: of 8 MiB the daemon sees a few packets.
	before := s.Packets.Bytes
	body, err := client.get("10.99.0.2", "https", "www.example", "/bulk", patience)
	if err != nil || len(body) != bulk {
		t.Fatalf("got %d bytes, %v", len(body), err)
	}
	if n := d.status().Packets.Bytes - before; n > bulk/16 {
		t.Errorf("the daemon saw %d bytes of a flow that was decided", n)
	}
	d.await("WATCHDOG=1")
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon ended: %v", err)
	}
	server.do(func() {
		if left := chains(t, "inquest"); len(left) > 0 {
			t.Errorf("chains %v are left", left)
		}
	})
	if _, err := client.get("10.99.0.2", "https", "x.ads.example", "/", patience); err != nil {
		t.Errorf("after the daemon ended: %v", err)
	}
}

// The kernel answers rejected packets in all the ways that a rule can ask for, also
// where they are forwarded.
func TestRejectNetns(t *testing.T) {
	client, router, server := newNamespace(t), newNamespace(t), newNamespace(t)
	connect(t, client, "eth0", router, "eth0")
	connect(t, server, "eth0", router, "eth1")
	client.address("eth0", "10.99.1.1/24")
	router.address("eth0", "10.99.1.254/24")
	router.address("eth1", "10.99.2.254/24")
	server.address("eth0", "10.99.2.1/24")
	client.gateway("10.99.1.254")
	server.gateway("10.99.2.254")
	router.sysctl("net/ipv4/ip_forward", "1")
	server.serve(t)
	d := router.run(t, "fail: closed\nhooks: [forward]", `
default: accept
rules:
  - {name: reset, when: tcp.dport == 1001, verdict: reject}
  - {name: port, when: udp.dport == 1001, verdict: reject}
  - {name: host, when: tcp.dport == 1002, verdict: reject-with icmp-host-unreachable}
  - {name: net, when: tcp.dport == 1003, verdict: reject-with icmp-net-unreachable}
  - {name: admin, when: tcp.dport == 1004, verdict: reject-with icmp-admin-prohibited}
  - {name: later, when: 'http.path == "/later"', verdict: reject}
  - {name: devices, when: 'tcp.dport == 80 && meta.iifname == "eth0" && meta.oifname == "eth1"', verdict: accept}
`)
	for port, want := range map[string]syscall.Errno{
		"1001": unix.ECONNREFUSED, "1002": unix.EHOSTUNREACH, "1003": unix.ENETUNREACH, "1004": unix.EHOSTUNREACH,
	} {
		c, err := client.dial("tcp", "10.99.2.1:"+port, patience)
		if err == nil {
			c.Close()
		}
		if opError, ok := err.(*net.OpError); !ok || !strings.Contains(opError.Error(), want.Error()) {
			t.Errorf("port %s: %v, want %v", port, err, want)
		}
	}
	c, err := client.dial("udp", "10.99.2.1:1001", patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := ping(c, time.Second); !isRefused(err) {
		t.Errorf("UDP: %v, want connection refused", err)
	}
	if body, err := client.get("10.99.2.1", "http", "www.example", "/", patience); err != nil {
		t.Errorf("what is accepted: %q, %v", body, err)
	}
	if _, err := client.get("10.99.2.1", "http", "www.example", "/later", patience); !isReset(err) {
		t.Errorf("after the handshake: %v, want a reset", err)
	}
	s := d.status()
	for _, name := range []string{"reset", "port", "host", "net", "admin", "later", "devices"} {
		if s.rule(name).Packets == 0 {
			t.Errorf("rule %s decided nothing", name)
		}
	}
	if s.Packets.Returned > 0 {
		t.Errorf("%d packets came back", s.Packets.Returned)
	}
}

// Where it is not a router that rejects, its answers go through chains that queue too.
func TestRejectLocalNetns(t *testing.T) {
	client, server := pair(t)
	server.serve(t)
	client.serve(t)
	d := server.run(t, "fail: closed\nhooks: [input, output]", `
default: accept
rules:
  - {name: in, when: tcp.dport == 1001 || udp.dport == 1001, verdict: reject}
  - {name: admin, when: tcp.dport == 1004, verdict: reject-with icmp-admin-prohibited}
  - {name: out, when: 'meta.oifname == "eth0" && (tcp.dport == 80 || udp.dport == 53)', verdict: reject}
  - {name: here, when: 'meta.oifname == "lo" && tcp.dport == 80', verdict: reject}
`)
	for _, server := range []string{"10.99.0.2", "fd99::2"} {
		if _, err := client.dial("tcp", net.JoinHostPort(server, "1001"), patience); !isRefused(err) {
			t.Errorf("TCP from outside, %s: %v, want connection refused", server, err)
		}
		if _, err := client.dial("tcp", net.JoinHostPort(server, "1004"), brief); err == nil || isTimeout(err) {
			t.Errorf("TCP from outside, answered by ICMP, %s: %v", server, err)
		}
		c, err := client.dial("udp", net.JoinHostPort(server, "1001"), patience)
		if err != nil {
			t.Fatal(err)
		}
		if err := ping(c, patience); !isRefused(err) {
			t.Errorf("UDP from outside, %s: %v, want connection refused", server, err)
		}
		c.Close()
	}
	for _, client := range []string{"10.99.0.1", "fd99::1"} {
		if _, err := server.dial("tcp", net.JoinHostPort(client, httpPort), patience); !isRefused(err) {
			t.Errorf("TCP to %s: %v, want connection refused", client, err)
		}
		if err := server.lookup(client, "good.example", patience); !isRefused(err) {
			t.Errorf("UDP to %s: %v, want connection refused", client, err)
		}
	}
	if _, err := server.dial("tcp", "127.0.0.1:"+httpPort, patience); !isRefused(err) {
		t.Errorf("TCP on loopback: %v, want connection refused", err)
	}
	if s := d.status(); s.Packets.Returned > 0 {
		t.Errorf("%d packets came back", s.Packets.Returned)
	}
}

// A daemon that is killed leaves its table. Until the next one is there, packets pass or
// are dropped, as daemon.fail says; then they are judged again.
func TestKillNetns(t *testing.T) {
	for _, fail := range []string{"open", "closed"} {
		t.Run(fail, func(t *testing.T) {
			client, server := pair(t)
			server.serve(t)
			settings := "hooks: [input]\nexclude: {ports: [udp/53]}\nqueues: 0-1\nfanout: true\nfail: " + fail
			d := server.run(t, settings, `
default: accept
rules:
  - {name: secret, when: tcp.dport == 443, verdict: reject}
  - {name: stays, when: tcp.dport == 7 && tcp.window >= 0, scope: packet, verdict: accept}
`)
			echo, err := client.dial("tcp", "10.99.0.2:"+echoPort, patience)
			if err != nil {
				t.Fatal(err)
			}
			defer echo.Close()
			if err := ping(echo, time.Second); err != nil {
				t.Fatal(err)
			}
			if _, err := client.dial("tcp", "10.99.0.2:"+tlsPort, patience); !isRefused(err) {
				t.Errorf("secret: %v", err)
			}

			d.stop(syscall.SIGKILL)
			_, err = client.get("10.99.0.2", "https", "www.example", "/", brief)
			if fail == "open" && err != nil || fail == "closed" && !isTimeout(err) {
				t.Errorf("while nobody listens: %v", err)
			}
			if err := client.lookup("10.99.0.2", "good.example", patience); err != nil {
				t.Errorf("what is excluded, while nobody listens: %v", err)
			}

			// The connection is in the middle of something when the next one starts.
			pinged := make(chan error)
			go func() { pinged <- ping(echo, 20*time.Second) }()
			time.Sleep(300 * time.Millisecond)
			d.start()
			if err := <-pinged; err != nil {
				t.Errorf("the connection did not survive: %v", err)
			}
			if _, err := client.dial("tcp", "10.99.0.2:"+tlsPort, patience); !isRefused(err) {
				t.Errorf("secret, after the restart: %v", err)
			}
			if err := d.stop(syscall.SIGINT); err != nil {
				t.Errorf("the daemon ended: %v", err)
			}
		})
	}
}

// Rules are reloaded, and refused, and the daemon ends and is started again, without
// losing a packet.
func TestReloadNetns(t *testing.T) {
	client, server := pair(t)
	server.serve(t)
	settings := "fail: closed\nhooks: [input, output]\nshortcut: false\nlog: {level: warn}"
	rules := func(host string) string {
		return "default: accept\nrules:\n  - {name: web, when: 'http.host == \"" + host + "\"', verdict: reject}\n"
	}
	d := server.run(t, settings, rules("a.example"))
	s := client.stream(t, "10.99.0.2", 100)
	hosts := []string{"a.example", "b.example"}
	reloads := uint64(0)
	for i := range 10 {
		host, other := hosts[(i+1)%2], hosts[i%2]
		d.write(settings, rules(host))
		if i%2 == 0 {
			// Not even the pause that a change of the file waits for.
			d.cmd.Process.Signal(syscall.SIGHUP)
		}
		reloads++
		eventually(t, "the rules are reloaded", func() bool { return d.status().Reloads == reloads })
		if _, err := client.get("10.99.0.2", "http", host, "/", patience); !isReset(err) {
			t.Errorf("%s: %v, want a reset", host, err)
		}
		if _, err := client.get("10.99.0.2", "http", other, "/", patience); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
	last := hosts[0]
	d.write(settings, "default: accept\nrules:\n  - {name: web, when: http.hots == 3, verdict: drop}\n")
	eventually(t, "the rules are refused", func() bool { return d.status().ReloadFails == 1 })
	if got := d.status().ReloadError; !strings.Contains(got, "there is no variable http.hots") || !strings.Contains(got, "rules.yaml:") {
		t.Errorf("the status says %q", got)
	}
	if _, err := client.get("10.99.0.2", "http", last, "/", patience); !isReset(err) {
		t.Errorf("%s, after the rules were refused: %v, want a reset", last, err)
	}
	d.await("RELOADING=1")
	d.await("READY=1")
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon ended: %v", err)
	}
	d.write(settings, rules("a.example"))
	d.start()
	time.Sleep(200 * time.Millisecond)
	sent, received := s.end()
	if sent != received || sent < 1000 {
		t.Errorf("of %d packets %d came back", sent, received)
	}
	t.Logf("%d packets, none lost, while rules were reloaded %d times and the daemon was ended and started", sent, reloads)
}

// A daemon that does not keep up: what does not fit in the queue passes, or is dropped,
// as daemon.fail says.
func TestOverloadNetns(t *testing.T) {
	for _, fail := range []string{"open", "closed"} {
		t.Run(fail, func(t *testing.T) {
			client, server := pair(t)
			server.serve(t)
			d := server.run(t, "hooks: [input]\nlength: 16\nshortcut: false\nfail: "+fail, "default: accept")
			d.cmd.Process.Signal(syscall.SIGSTOP)
			s := client.stream(t, "10.99.0.2", 600)
			eventually(t, "many packets are sent", func() bool { return s.sent.Load() > 550 || s.sent.Load()-s.received.Load() > 500 })
			while := s.received.Load()
			d.cmd.Process.Signal(syscall.SIGCONT)
			sent, received := s.end()
			t.Logf("%d sent; %d came back while the daemon was stopped, %d in all", sent, while, received)
			lost := sent - received
			if fail == "open" && (lost > 0 || while < 400) {
				t.Errorf("%d packets were lost, %d passed", lost, while)
			}
			if fail == "closed" && (while > 0 || lost < 400) {
				t.Errorf("%d packets passed uninspected, %d were lost", while, lost)
			}
			if fail == "closed" {
				if q := d.status().Queues[0]; int64(q.Full) < lost {
					t.Errorf("%d packets were lost, the status says %d", lost, q.Full)
				}
			}
		})
	}
}

// Somebody flushes the whole ruleset.
func TestFlushNetns(t *testing.T) {
	client, server := pair(t)
	server.serve(t)
	d := server.run(t, "fail: closed\nhooks: [input]", "default: accept\nrules:\n  - {name: secret, when: tcp.dport == 443, verdict: reject}\n")
	server.must(func() error { return d.ruleset().Remove() })
	eventually(t, "the table is there again", func() bool { return d.status().Reinstalled == 1 })
	if _, err := client.dial("tcp", "10.99.0.2:"+tlsPort, patience); !isRefused(err) {
		t.Errorf("secret: %v", err)
	}
}

// ruleset is what the daemon installed.
func (d *daemon) ruleset() *Ruleset { return &Ruleset{Table: "inquest"} }

// What "inquest verdict rules --iptables" prints does the same as the table.
func TestIPTablesNetns(t *testing.T) {
	client, server := pair(t)
	server.serve(t)
	d := server.run(t, "fail: closed\nhooks: [input, output]", names, "--no-install")
	program, err := inquestBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, target := range map[string]string{"iptables": "iptables-legacy", "ip6tables": "ip6tables-legacy"} {
		path, err := exec.LookPath(target)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	shell := func(flag string) {
		t.Helper()
		commands, err := exec.Command(program, "verdict", "rules", d.rules, flag).Output()
		if err != nil {
			t.Fatal(err)
		}
		server.must(func() error {
			cmd := exec.Command("sh", "-e")
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			cmd.Stdin = strings.NewReader(string(commands))
			out, err := cmd.CombinedOutput()
			t.Logf("%s: %s", flag, out)
			return err
		})
	}
	shell("--iptables")
	checkNames(t, client, "10.99.0.2")
	checkNames(t, client, "fd99::2")
	if s := d.status(); s.Packets.Returned > 0 || s.Flows.Left == 0 || s.Installed != "" {
		t.Errorf("status: %+v", s)
	}
	shell("--iptables-undo")
	before := d.status().Packets.Received
	if _, err := client.get("10.99.0.2", "https", "x.ads.example", "/", patience); err != nil {
		t.Errorf("after the rules are gone: %v", err)
	}
	if n := d.status().Packets.Received - before; n > 0 {
		t.Errorf("%d packets came after the rules are gone", n)
	}
}

// With rules of which only the last was copied, packets come back. They must not go
// round for ever.
func TestMissingRulesNetns(t *testing.T) {
	client, server := pair(t)
	server.serve(t)
	d := server.run(t, "fail: closed\nhooks: [input]", names, "--no-install")
	server.must(func() error {
		return exec.Command("iptables-legacy", "-w", "-A", "INPUT", "-j", "NFQUEUE", "--queue-num", "0").Run()
	})
	if body, err := client.get("10.99.0.2", "https", "www.example", "/", patience); err != nil {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := client.get("10.99.0.2", "https", "x.ads.example", "/", brief); !isTimeout(err) {
		t.Errorf("rejected, which nobody answers: %v", err)
	}
	if n := d.status().Packets.Returned; n == 0 {
		t.Error("no packets came back")
	}
	if log := d.logged(); !strings.Contains(log, "the kernel lacks the rules") {
		t.Errorf("the log says nothing of it:\n%s", log)
	}
}

// Two daemons cannot have one queue, and the second says so and touches nothing.
func TestBusyNetns(t *testing.T) {
	client, server := pair(t)
	server.serve(t)
	d := server.run(t, "fail: closed\nhooks: [input]", "default: accept\nrules:\n  - {name: secret, when: tcp.dport == 443, verdict: reject}\n")
	program, err := inquestBinary()
	if err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("default: accept\ndaemon: {fail: open, socket: ''}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out []byte
	server.do(func() { out, err = exec.Command(program, "verdict", "run", "--config", rules).CombinedOutput() })
	if err == nil || !strings.Contains(string(out), "queue is bound by another socket") || !strings.Contains(string(out), "Another program reads that queue") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := client.dial("tcp", "10.99.0.2:"+tlsPort, patience); !isRefused(err) {
		t.Errorf("secret: %v", err)
	}
	if s := d.status(); s.Reinstalled > 0 {
		t.Errorf("the table was touched: %+v", s)
	}
}

// CAP_NET_ADMIN is all that the daemon needs, to reject too.
func TestLeastPrivilegeNetns(t *testing.T) {
	client, server := pair(t)
	server.serve(t)
	d := server.prepare(t, "fail: closed\nhooks: [input, output]", names)
	const nobody = 65534
	d.rights = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN},
	}
	for _, path := range []string{filepath.Dir(d.rules), filepath.Dir(filepath.Dir(d.rules))} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("CapEff:\t%016x\n", 1<<unix.CAP_NET_ADMIN); !strings.Contains(string(status), want) {
		t.Errorf("the daemon has other rights than %q:\n%s", want, status)
	}
	checkNames(t, client, "10.99.0.2")
	d.write("fail: closed\nhooks: [input, output]", "default: accept\nrules:\n  - {name: secret, when: tcp.dport == 443, verdict: reject}\n")
	eventually(t, "the rules are reloaded", func() bool { return d.status().Reloads == 1 })
	if _, err := client.dial("tcp", "10.99.0.2:"+tlsPort, patience); !isRefused(err) {
		t.Errorf("secret: %v", err)
	}
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Errorf("the daemon ended: %v", err)
	}
	server.do(func() {
		if left := chains(t, "inquest"); len(left) > 0 {
			t.Errorf("chains %v are left", left)
		}
	})
}
