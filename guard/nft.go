package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Errors of what touches a machine.
var (
	// ErrPermission is the error for a process without the rights that it takes:
	// CAP_NET_ADMIN for rules, CAP_SYS_MODULE for the hook.
	ErrPermission = errors.New("root's rights are needed")
	// ErrBusyRules is the error for rules that others change faster than they can be read.
	ErrBusyRules = errors.New("the rules change all the time")
)

// nft talks to nf_tables (include/uapi/linux/netfilter/nf_tables.h). Rules are kept as
// the kernel gave them, as bytes: what is copied means the same whether this package
// knows its expressions or not.
type nft struct {
	conn *netlink.Conn
}

// openNFT opens a socket in the calling thread's network namespace.
func openNFT() (*nft, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	return &nft{conn}, nil
}

func (n *nft) Close() error { return n.conn.Close() }

// chainKey names a chain.
type chainKey struct {
	family       byte
	table, chain string
}

// chain is one of the kernel's.
type chain struct {
	chainKey
	base  bool
	hook  uint32
	bound bool // to the one rule that jumps to it; nothing can be inserted
}

// kernelRule is a rule as the kernel tells it.
type kernelRule struct {
	chainKey
	handle  uint64
	exprs   []expression
	comment string
}

// expression is a part of a rule: a condition, or what is done.
type expression struct {
	name string
	data []byte // attributes
}

// snapshot is the ruleset of a network namespace at one moment.
type snapshot struct {
	generation uint32
	owned      map[chainKey]bool // tables, without a chain, that only their owner may change
	chains     []chain
	rules      []kernelRule
	// elements of the sets and maps of verdicts, and of the anonymous ones that rules
	// which queue look into
	sets map[setKey]*set
}

// read reads the whole ruleset. A kernel without nf_tables has an empty one.
func (n *nft) read() (*snapshot, error) {
	const tries = 20
	for range tries {
		before, err := n.generation()
		if errors.Is(err, errNoNFT) {
			return &snapshot{}, nil
		}
		if err != nil {
			return nil, err
		}
		s, err := n.readOnce()
		if err == nil {
			s.generation = before
			return s, nil
		}
		// A dump that a change has interrupted is EINTR; what a list named and is gone, ENOENT.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
	}
	return nil, ErrBusyRules
}

var errNoNFT = errors.New("the kernel has no nftables")

// generation counts the ruleset's changes.
func (n *nft) generation() (uint32, error) {
	list, err := n.dump(unix.NFT_MSG_GETGEN, 0, 0, nil)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		// nfnetlink's answer for a subsystem that it does not know
		return 0, errNoNFT
	}
	if err != nil {
		return 0, fmt.Errorf("read the ruleset's generation: %w", err)
	}
	for _, m := range list {
		if v, ok := m.get(unix.NFTA_GEN_ID); ok && len(v) == 4 {
			return binary.BigEndian.Uint32(v), nil
		}
	}
	return 0, errors.New("the kernel does not tell the ruleset's generation")
}

func (n *nft) readOnce() (*snapshot, error) {
	s := &snapshot{owned: make(map[chainKey]bool), sets: make(map[setKey]*set)}
	tables, err := n.dump(unix.NFT_MSG_GETTABLE, unix.AF_UNSPEC, netlink.Dump, nil)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	for _, m := range tables {
		if m.uint32(unix.NFTA_TABLE_FLAGS)&tableOwner != 0 {
			s.owned[chainKey{family: m.family, table: m.text(unix.NFTA_TABLE_NAME)}] = true
		}
	}
	chains, err := n.dump(unix.NFT_MSG_GETCHAIN, unix.AF_UNSPEC, netlink.Dump, nil)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	for _, m := range chains {
		s.chains = append(s.chains, decodeChain(m))
	}
	rules, err := n.dump(unix.NFT_MSG_GETRULE, unix.AF_UNSPEC, netlink.Dump, nil)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	for _, m := range rules {
		r, err := decodeRule(m)
		if err != nil {
			return nil, err
		}
		s.rules = append(s.rules, r)
	}
	for _, key := range s.wantedSets() {
		if s.sets[key], err = n.readSet(key); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Flags that x/sys does not have.
const (
	tableOwner   = 0x2    // NFT_TABLE_F_OWNER, 5.12
	chainBinding = 0x4    // NFT_CHAIN_BINDING, 5.9
	chainFlags   = 10     // NFTA_CHAIN_FLAGS
	attrType     = 0x3fff // of an attribute, without flags
)

func decodeChain(m message) chain {
	c := chain{chainKey: chainKey{m.family, m.text(unix.NFTA_CHAIN_TABLE), m.text(unix.NFTA_CHAIN_NAME)}}
	c.bound = m.uint32(chainFlags)&chainBinding != 0
	if hook, ok := m.get(unix.NFTA_CHAIN_HOOK); ok {
		c.base = true
		c.hook = attributes(hook).uint32(unix.NFTA_HOOK_HOOKNUM)
	}
	return c
}

func decodeRule(m message) (kernelRule, error) {
	r := kernelRule{chainKey: chainKey{m.family, m.text(unix.NFTA_RULE_TABLE), m.text(unix.NFTA_RULE_CHAIN)}}
	if v, ok := m.get(unix.NFTA_RULE_HANDLE); ok && len(v) == 8 {
		r.handle = binary.BigEndian.Uint64(v)
	}
	if v, ok := m.get(unix.NFTA_RULE_USERDATA); ok {
		r.comment = comment(v)
	}
	list, _ := m.get(unix.NFTA_RULE_EXPRESSIONS)
	elements, err := netlink.UnmarshalAttributes(list)
	if err != nil {
		return r, fmt.Errorf("rule %d of %s: %w", r.handle, r.chainKey, err)
	}
	for _, e := range elements {
		a := attributes(e.Data)
		data, _ := a.get(unix.NFTA_EXPR_DATA)
		r.exprs = append(r.exprs, expression{a.text(unix.NFTA_EXPR_NAME), data})
	}
	return r, nil
}

// familyNames are nft's.
var familyNames = map[byte]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6",
	unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

func (k chainKey) String() string {
	return fmt.Sprintf("%s %s %s", familyNames[k.family], k.table, k.chain)
}

// comment returns the comment in a rule's user data: pieces of type, length, value;
// type 0 is nft's comment, which ends with a zero.
func comment(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		kind, value := data[0], data[2:2+int(data[1])]
		if kind == 0 && len(value) > 0 {
			return string(value[:len(value)-1])
		}
		data = data[2+len(value):]
	}
	return ""
}

func commentData(text string) []byte {
	return append(append([]byte{0, byte(len(text) + 1)}, text...), 0)
}

// attributes are netlink attributes in a row.
type attributes []byte

// get returns the first of a kind.
func (a attributes) get(kind uint16) ([]byte, bool) {
	for len(a) >= unix.NLA_HDRLEN {
		size := int(binary.NativeEndian.Uint16(a))
		if size < unix.NLA_HDRLEN || size > len(a) {
			return nil, false
		}
		if binary.NativeEndian.Uint16(a[2:])&attrType == kind {
			return a[unix.NLA_HDRLEN:size], true
		}
		a = a[min((size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(a)):]
	}
	return nil, false
}

// text is a string without the zero that ends it; "" if there is none.
func (a attributes) text(kind uint16) string {
	v, _ := a.get(kind)
	if n := len(v); n > 0 && v[n-1] == 0 {
		v = v[:n-1]
	}
	return string(v)
}

// uint32 is a number in network order; 0 if there is none.
func (a attributes) uint32(kind uint16) uint32 {
	if v, ok := a.get(kind); ok && len(v) == 4 {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// message is one of nf_tables.
type message struct {
	family byte
	attributes
}

// dump sends a request and returns the answers.
func (n *nft) dump(kind uint16, family byte, flags netlink.HeaderFlags, attrs []netlink.Attribute) ([]message, error) {
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil, err
	}
	answers, err := n.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, body...),
	})
	if err != nil {
		return nil, explained(err)
	}
	var list []message
	for _, m := range answers {
		if len(m.Data) >= 4 {
			list = append(list, message{m.Data[0], m.Data[4:]})
		}
	}
	return list, nil
}

// explained makes an error of rights one of ours.
func explained(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return err
}

// change is one message of a transaction.
type change struct {
	kind   uint16
	flags  netlink.HeaderFlags
	family byte
	attrs  []netlink.Attribute
}

// errChanged is the error for a ruleset that is not any more what was read.
var errChanged = errors.New("the ruleset has changed meanwhile")

// commit makes changes, all of them or none, and only if the ruleset still is of this
// generation. It takes a socket of its own, lest the answers mix with others.
func commit(generation uint32, changes []change) error {
	n, err := openNFT()
	if err != nil {
		return err
	}
	defer n.Close()
	batch := func(kind netlink.HeaderType, flags netlink.HeaderFlags, body []byte) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
			Data:   append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}, body...), // res_id, in network order
		}
	}
	// The generation is looked at since 4.11 (8c4d4e8b5626).
	expected, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFNL_BATCH_GENID, Data: binary.BigEndian.AppendUint32(nil, generation)}})
	if err != nil {
		return err
	}
	list := []netlink.Message{batch(unix.NFNL_MSG_BATCH_BEGIN, 0, expected)}
	for _, c := range changes {
		body, err := netlink.MarshalAttributes(c.attrs)
		if err != nil {
			return err
		}
		list = append(list, netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | netlink.HeaderType(c.kind), Flags: netlink.Request | netlink.Acknowledge | c.flags},
			Data:   append([]byte{c.family, unix.NFNETLINK_V0, 0, 0}, body...),
		})
	}
	list = append(list, batch(unix.NFNL_MSG_BATCH_END, 0, nil))
	if _, err := n.conn.SendMessages(list); err != nil {
		return explained(err)
	}
	for answered := 0; answered < len(changes); {
		got, err := n.conn.Receive()
		switch {
		case errors.Is(err, unix.ERESTART):
			return errChanged
		case err != nil:
			return explained(err)
		}
		answered += len(got)
	}
	return nil
}
