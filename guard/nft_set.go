package guard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// setKey names a set.
type setKey struct {
	family      byte
	table, name string
}

// set is a set or a map, with its elements as the kernel gave them.
type set struct {
	attributes
	elements []netlink.Attribute // each an NFTA_LIST_ELEM
}

// setNames are the attributes by which expressions name a set, and give the number of
// one that the same transaction makes.
var setNames = map[string]struct{ name, id uint16 }{
	"lookup": {unix.NFTA_LOOKUP_SET, unix.NFTA_LOOKUP_SET_ID},
	"dynset": {unix.NFTA_DYNSET_SET_NAME, unix.NFTA_DYNSET_SET_ID},
	"objref": {unix.NFTA_OBJREF_SET_NAME, unix.NFTA_OBJREF_SET_ID},
}

// setName is the name of the set that an expression looks into, or "".
func (e expression) setName() string {
	names, ok := setNames[e.name]
	if !ok {
		return ""
	}
	return attributes(e.data).text(names.name)
}

// wantedSets are the sets whose elements matter: those of verdicts, which may lead to
// other chains, and those that rules which queue look into.
func (s *snapshot) wantedSets() []setKey {
	wanted := make(map[setKey]bool)
	for _, r := range s.rules {
		_, queues := r.queue()
		for _, e := range r.exprs {
			if name := e.setName(); name != "" && (queues || e.givesVerdict()) {
				wanted[setKey{r.family, r.table, name}] = true
			}
		}
	}
	keys := slices.Collect(maps.Keys(wanted))
	slices.SortFunc(keys, func(a, b setKey) int { return bytes.Compare([]byte(a.table+a.name), []byte(b.table+b.name)) })
	return keys
}

// givesVerdict reports whether the expression looks up a verdict, in a map.
func (e expression) givesVerdict() bool {
	if e.name != "lookup" {
		return false
	}
	v, ok := attributes(e.data).get(unix.NFTA_LOOKUP_DREG)
	return ok && len(v) == 4 && binary.BigEndian.Uint32(v) == unix.NFT_REG_VERDICT
}

// anonymous reports whether the set belongs to a rule.
func (s *set) anonymous() bool {
	return s.uint32(unix.NFTA_SET_FLAGS)&unix.NFT_SET_ANONYMOUS != 0
}

func (n *nft) readSet(key setKey) (*set, error) {
	name := []netlink.Attribute{text(unix.NFTA_SET_TABLE, key.table), text(unix.NFTA_SET_NAME, key.name)}
	found, err := n.dump(unix.NFT_MSG_GETSET, key.family, 0, name)
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("read set %s of table %s: %w", key.name, key.table, err)
	}
	s := &set{attributes: found[0].attributes}
	of := []netlink.Attribute{text(unix.NFTA_SET_ELEM_LIST_TABLE, key.table), text(unix.NFTA_SET_ELEM_LIST_SET, key.name)}
	lists, err := n.dump(unix.NFT_MSG_GETSETELEM, key.family, netlink.Dump, of)
	if err != nil {
		return nil, fmt.Errorf("read the elements of set %s of table %s: %w", key.name, key.table, err)
	}
	for _, m := range lists {
		list, _ := m.get(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		elements, err := netlink.UnmarshalAttributes(list)
		if err != nil {
			return nil, fmt.Errorf("set %s of table %s: %w", key.name, key.table, err)
		}
		s.elements = append(s.elements, elements...)
	}
	s.ascend()
	return s, nil
}

// ascend puts the elements into the order in which nft adds them. A tree of intervals,
// which is told from its end, refuses an end without the beginning.
func (s *set) ascend() {
	key := func(e netlink.Attribute) []byte {
		k, _ := attributes(e.Data).get(unix.NFTA_SET_ELEM_KEY)
		return k
	}
	if n := len(s.elements); n > 1 && bytes.Compare(key(s.elements[0]), key(s.elements[n-1])) > 0 {
		slices.Reverse(s.elements)
	}
}

// chains are those that a map of verdicts leads to.
func (s *set) chains() []string {
	var names []string
	for _, e := range s.elements {
		data, _ := attributes(e.Data).get(unix.NFTA_SET_ELEM_DATA)
		if verdict, ok := attributes(data).get(unix.NFTA_DATA_VERDICT); ok {
			if name := attributes(verdict).text(unix.NFTA_VERDICT_CHAIN); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// kept are the attributes of a set that make another like it.
var kept = []uint16{
	unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN,
	unix.NFTA_SET_POLICY, unix.NFTA_SET_DESC, unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_USERDATA,
	unix.NFTA_SET_OBJ_TYPE,
}

// copied makes another anonymous set with the same elements: such a one can be of one
// rule only. id tells it from others of the transaction.
func (s *set) copied(key setKey, id uint32) []change {
	number := binary.BigEndian.AppendUint32(nil, id)
	attrs := []netlink.Attribute{text(unix.NFTA_SET_TABLE, key.table), text(unix.NFTA_SET_NAME, anonymousSet), {Type: unix.NFTA_SET_ID, Data: number}}
	for _, kind := range kept {
		if v, ok := s.get(kind); ok {
			if kind == unix.NFTA_SET_DESC {
				kind |= netlink.Nested
			}
			attrs = append(attrs, netlink.Attribute{Type: kind, Data: v})
		}
	}
	changes := []change{{unix.NFT_MSG_NEWSET, netlink.Create, key.family, attrs}}
	const most = 32 << 10 // an attribute has at most 64 KiB
	for rest := s.elements; len(rest) > 0; {
		size, n := 0, 0
		for n < len(rest) && (n == 0 || size+len(rest[n].Data) < most) {
			size += len(rest[n].Data) + 8
			n++
		}
		changes = append(changes, change{unix.NFT_MSG_NEWSETELEM, netlink.Create, key.family, []netlink.Attribute{
			text(unix.NFTA_SET_ELEM_LIST_TABLE, key.table), text(unix.NFTA_SET_ELEM_LIST_SET, anonymousSet),
			{Type: unix.NFTA_SET_ELEM_LIST_SET_ID, Data: number},
			{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | netlink.Nested, Data: nested(rest[:n]...)},
		}})
		rest = rest[n:]
	}
	return changes
}

// anonymousSet is the pattern that the kernel makes a name of.
const anonymousSet = "__set%d"

// in returns the expression with another set in place of its own.
func (e expression) in(id uint32) expression {
	names := setNames[e.name]
	list, _ := netlink.UnmarshalAttributes(e.data)
	var attrs []netlink.Attribute
	for _, a := range list {
		if kind := a.Type & attrType; kind != names.name && kind != names.id {
			attrs = append(attrs, a)
		}
	}
	return expression{e.name, nested(append(attrs, text(names.name, anonymousSet),
		netlink.Attribute{Type: names.id, Data: binary.BigEndian.AppendUint32(nil, id)})...)}
}

func text(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

// nested are attributes in a row, each of less than 64 KiB.
func nested(list ...netlink.Attribute) []byte {
	var b []byte
	for _, a := range list {
		b = binary.NativeEndian.AppendUint16(b, uint16(len(a.Data)+unix.NLA_HDRLEN))
		b = binary.NativeEndian.AppendUint16(b, a.Type)
		b = append(b, a.Data...)
		b = append(b, make([]byte, -len(b)&(unix.NLA_ALIGNTO-1))...)
	}
	return b
}
