package verdict

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: -want +got:\n%s", name, diff)
	}
}

// fullConfig excludes one of everything.
func fullConfig() *Config {
	c := defaults()
	c.Queues, c.Fanout, c.Fail = Queues{0, 4}, true, FailOpen
	c.Exclude = Exclude{
		Interfaces: []string{"lo", "wg+"},
		Networks:   []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Ports:      []Port{{unix.IPPROTO_TCP, 22}, {unix.IPPROTO_UDP, 53}, {unix.IPPROTO_SCTP, 9}},
	}
	return &c
}

func TestRulesetText(t *testing.T) {
	closed := defaults()
	closed.Hooks, closed.Shortcut, closed.Queues, closed.Table = []Hook{Output}, false, Queues{7, 1}, "edge"
	for name, r := range map[string]*Ruleset{
		"full":   NewRuleset(fullConfig(), true),
		"closed": NewRuleset(&closed, false),
	} {
		golden(t, name+".nft", r.NFT())
		golden(t, name+".iptables", strings.Join(r.IPTables(), "\n")+"\n")
		golden(t, name+".iptables-remove", strings.Join(r.IPTablesRemove(), "\n")+"\n")
	}
}

// Names of iptables' chains have at most 28 characters (XT_EXTENSION_MAXNAMELEN).
func TestIPTablesChainNames(t *testing.T) {
	c := fullConfig()
	c.Table = "a23456789012345678_"
	if !tableName.MatchString(c.Table) || tableName.MatchString(c.Table+"0") {
		t.Fatalf("%q is not the longest name of a table", c.Table)
	}
	for _, command := range NewRuleset(c, true).IPTables() {
		words := strings.Fields(command)
		if words[2] == "-N" && len(words[3]) > 28 {
			t.Errorf("%q has %d characters", words[3], len(words[3]))
		}
	}
}

// kernelSays answers as a kernel that has no table of ours, and refuses what contains
// one of the words. It records the types of the messages of the last transaction.
type kernelSays struct {
	refuse []string
	errno  int
	times  int // transactions to refuse something in; 0 for all
	sent   []uint16
	data   [][]byte
}

func (k *kernelSays) dial(req []netlink.Message) ([]netlink.Message, error) {
	var replies []netlink.Message
	for _, m := range req {
		kind := uint16(m.Header.Type)
		if kind == unix.NFNL_MSG_BATCH_BEGIN {
			k.sent, k.data = nil, nil
		}
		if kind == unix.NFNL_MSG_BATCH_END && k.times == 1 {
			k.refuse = nil
		}
		k.sent, k.data = append(k.sent, kind&0xff), append(k.data, m.Data)
		if m.Header.Flags&netlink.Acknowledge == 0 || kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
			continue
		}
		code := 0
		for _, word := range k.refuse {
			if bytes.Contains(m.Data, []byte(word)) {
				code = k.errno
			}
		}
		m.Header.Type = netlink.Error
		m.Data = binaryNative(uint32(-code))
		replies = append(replies, m)
	}
	return replies, nil
}

func binaryNative(v uint32) []byte {
	return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}
}

func TestInstallMessages(t *testing.T) {
	k := &kernelSays{}
	r := NewRuleset(fullConfig(), true)
	way, err := r.Install(nftables.WithTestDial(k.dial))
	if err != nil || way != ByQueue {
		t.Fatalf("got %q, %v", way, err)
	}
	rules := 0
	for _, c := range r.chains {
		rules += len(c.rules)
	}
	messages := func(first ...uint16) []uint16 {
		list := append([]uint16{unix.NFNL_MSG_BATCH_BEGIN}, first...)
		list = append(list, unix.NFT_MSG_NEWTABLE)
		list = append(list, slices.Repeat([]uint16{unix.NFT_MSG_NEWCHAIN}, len(r.chains))...)
		list = append(list, slices.Repeat([]uint16{unix.NFT_MSG_NEWRULE}, rules)...)
		return append(list, unix.NFNL_MSG_BATCH_END)
	}
	want := messages(unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELRULE)
	if diff := cmp.Diff(want, k.sent); diff != "" {
		t.Errorf("the transaction's messages: -want +got:\n%s", diff)
	}
	// NFTA_QUEUE_NUM 0, NFTA_QUEUE_TOTAL 4, NFTA_QUEUE_FLAGS bypass and fanout; network order.
	queue := []byte{6, 0, 1, 0, 0, 0, 0, 0, 6, 0, 2, 0, 0, 4, 0, 0, 6, 0, 3, 0, 0, 3, 0, 0}
	if last := k.data[len(k.data)-2]; !bytes.Contains(last, queue) {
		t.Errorf("the last rule does not queue: % x", last)
	}

	if err := r.StopQueueing(nftables.WithTestDial(k.dial)); err != nil {
		t.Fatal(err)
	}
	for _, data := range k.data {
		if bytes.Contains(data, []byte("\x01\x00queue\x00")) {
			t.Error("a rule still queues")
		}
	}
	rules -= 3
	if diff := cmp.Diff(messages(unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELRULE), k.sent); diff != "" {
		t.Errorf("the transaction that stops queueing: -want +got:\n%s", diff)
	}

	// A kernel whose table hooks in elsewhere.
	rules += 3
	k.errno, k.refuse, k.times = int(unix.EEXIST), []string{"input\x00"}, 1
	if way, err := r.Install(nftables.WithTestDial(k.dial)); err != nil || way != ByQueue {
		t.Fatalf("got %q, %v", way, err)
	}
	if diff := cmp.Diff(messages(unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE), k.sent); diff != "" {
		t.Errorf("the transaction that makes the table anew: -want +got:\n%s", diff)
	}
}

func TestInstallRefused(t *testing.T) {
	tests := []struct {
		refuse []string
		errno  unix.Errno
		way    Way
		want   error
	}{
		{[]string{"\x01\x00queue\x00"}, unix.ENOENT, ByXT, nil},
		{[]string{"\x01\x00queue\x00", "NFQUEUE"}, unix.ENOENT, "", ErrNoQueueing},
		{[]string{"reject\x00"}, unix.ENOENT, "", ErrNoQueueing},
		{[]string{"inquest"}, unix.EPERM, "", ErrPermission},
		{[]string{"inquest"}, unix.EINVAL, "", ErrNoNFTables},
		{[]string{"inquest"}, unix.EBUSY, "", unix.EBUSY},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.refuse, test.errno), func(t *testing.T) {
			k := &kernelSays{refuse: test.refuse, errno: int(test.errno)}
			way, err := NewRuleset(fullConfig(), true).Install(nftables.WithTestDial(k.dial))
			if way != test.way || !errors.Is(err, test.want) {
				t.Errorf("got %q, %v; want %q, %v", way, err, test.way, test.want)
			}
		})
	}
}

// What is excluded or carved out must come before the queue, and what the daemon said
// before all else.
func TestRulesetOrder(t *testing.T) {
	for _, carveOut := range []bool{true, false} {
		for _, c := range NewRuleset(fullConfig(), carveOut).chains {
			if !c.hooked {
				continue
			}
			if _, first := c.rules[0].when[0].(packetMark); !first {
				t.Errorf("%s begins with %s", c.name, c.rules[0].do.nft())
			}
			carved := 0
			for i, rule := range c.rules {
				if _, queue := rule.do.(enqueue); queue != (i == len(c.rules)-1) {
					t.Errorf("%s: rule %d is %s", c.name, i, rule.do.nft())
				}
				for _, m := range rule.when {
					if m == tcpSYN|tcpACK {
						carved++
					}
				}
			}
			want := 0
			if carveOut && c.hook == Output {
				want = 1
			}
			if carved != want {
				t.Errorf("%s has %d carve-outs, want %d", c.name, carved, want)
			}
		}
	}
}
