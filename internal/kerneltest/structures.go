package kerneltest

import (
	"slices"

	"github.com/cilium/ebpf/btf"
)

// ListHead is struct list_head.
var ListHead = func() *btf.Struct {
	s := &btf.Struct{Name: "list_head"}
	Complete(s, Field{Name: "next", Type: Ptr(s)}, Field{Name: "prev", Type: Ptr(s)})
	return s
}()

// List links nodes into a circular list behind a head.
func (m *Machine) List(head uint64, nodes ...uint64) {
	prev := head
	for _, n := range append(nodes, head) {
		m.Write64(prev, n)
		m.Write64(n+8, prev)
		prev = n
	}
}

// Chain links nodes into a chain that ends with an end marker (hlist, llist,
// hlist_nulls).
func (m *Machine) Chain(head, end uint64, nodes ...uint64) {
	for _, n := range append(nodes, end) {
		m.Write64(head, n)
		head = n
	}
}

// RBTree makes a red-black tree of nodes that are given in order.
func (m *Machine) RBTree(root uint64, nodes ...uint64) {
	var build func(nodes []uint64, parent uint64) uint64
	build = func(nodes []uint64, parent uint64) uint64 {
		if len(nodes) == 0 {
			return 0
		}
		mid := len(nodes) / 2
		n := nodes[mid]
		m.Write64(n, parent|1) // black
		m.Write64(n+16, build(nodes[:mid], n))
		m.Write64(n+8, build(nodes[mid+1:], n))
		return n
	}
	m.Write64(root, build(nodes, 0))
}

// XArray are struct xarray and struct xa_node.
var (
	XArray = Struct("xarray", Field{Name: "xa_lock", Type: U32}, Field{Name: "xa_flags", Type: U32}, Field{Name: "xa_head", Type: Ptr(Void)})
	XANode = Struct("xa_node", Field{Name: "shift", Type: U8}, Field{Name: "offset", Type: U8}, Field{Name: "count", Type: U8},
		Field{Name: "nr_values", Type: U8}, Field{Name: "parent", Type: Ptr(Void)}, Field{Name: "slots", Type: Array(Ptr(Void), 64)})
)

// RadixRoot and RadixNode are those of 4.18.
var (
	RadixRoot = Struct("radix_tree_root", Field{Name: "gfp_mask", Type: U32}, Field{Name: "rnode", Type: Ptr(Void)})
	RadixNode = Struct("radix_tree_node", Field{Name: "shift", Type: U8}, Field{Name: "offset", Type: U8}, Field{Name: "count", Type: U8},
		Field{Name: "exceptional", Type: U8}, Field{Name: "parent", Type: Ptr(Void)}, Field{Name: "root", Type: Ptr(Void)},
		Field{Name: "slots", Type: Array(Ptr(Void), 64)})
)

// SlotTree makes an XArray, or a radix tree when radix is set, and returns its root.
func (m *Machine) SlotTree(radix bool, entries map[uint64]uint64) uint64 {
	root, head, node, tag := btf.Type(XArray), "xa_head", btf.Type(XANode), uint64(2)
	if radix {
		root, head, node, tag = RadixRoot, "rnode", RadixNode, 1
	}
	at := m.New(root)
	highest := uint64(0)
	for i := range entries {
		highest = max(highest, i)
	}
	if len(entries) == 0 {
		return at
	}
	if highest == 0 {
		m.Set(at, root, head, entries[0])
		return at
	}
	var build func(index uint64, shift uint) uint64
	build = func(index uint64, shift uint) uint64 {
		n := m.New(node)
		m.Set(n, node, "shift", uint64(shift))
		slots, _ := Offset(node, "slots")
		for i, v := range entries {
			if i>>(shift+6) != index>>(shift+6) {
				continue
			}
			slot := i >> shift & 63
			if shift > 0 {
				v = build(i&^(1<<shift-1), shift-6)
			}
			m.Write64(n+slots+8*slot, v)
		}
		return n | tag
	}
	shift := uint(0)
	for highest>>(shift+6) != 0 {
		shift += 6
	}
	m.Set(at, root, head, build(0, shift))
	return at
}

// Message is a record of the printk log.
type Message struct {
	NSec   uint64
	Level  uint8
	Caller uint32
	Text   string
}

// PrintkRing writes a printk_ringbuffer of 2^descBits records and 2^dataBits bytes,
// and its layout into VMCOREINFO. Old messages are overwritten, as in the kernel.
func (m *Machine) PrintkRing(descBits, dataBits uint, msgs ...Message) (rb uint64) {
	const (
		descSize, infoSize  = 24, 88
		finalized, reusable = 2, 3
	)
	count, size := uint64(1)<<descBits, uint64(1)<<dataBits
	rb = m.Alloc(96, 8)
	descs := m.Alloc(int(count)*descSize, 8)
	infos := m.Alloc(int(count)*infoSize, 8)
	data := m.Alloc(int(size), 8)
	const firstID = ^uint64(0)>>2 - 2 // ids wrap
	mask := uint64(1<<62 - 1)
	id, lpos := uint64(firstID), uint64(0)
	begins := map[uint64]uint64{} // of the texts that are still there, by id
	for _, msg := range msgs {
		id = (id + 1) & mask
		d, i := descs+id%count*descSize, infos+id%count*infoSize
		blk := (uint64(len(msg.Text)) + 8 + 7) &^ 7
		begin, next := lpos, lpos+blk
		at := begin % size
		if begin/size != (next-1)/size {
			next, at = next&^(size-1)+blk, 0
		}
		lpos = next
		for old, at := range begins {
			if at+size < next {
				m.Write64(descs+old%count*descSize, reusable<<62|old)
				delete(begins, old)
			}
		}
		begins[id] = begin
		delete(begins, (id-count)&mask)
		if msg.Text == "" {
			begin, next = 3, 3
		} else {
			m.Write64(data+at, id)
			m.Write(data+at+8, []byte(msg.Text))
		}
		m.Write64(d, finalized<<62|id)
		m.Write64(d+8, begin)
		m.Write64(d+16, next)
		m.Write64(i+8, msg.NSec)
		m.Write(i+16, le.AppendUint16(nil, uint16(len(msg.Text))))
		m.Write(i+18, []byte{0, msg.Level << 5})
		m.Write32(i+20, msg.Caller)
	}
	m.Write32(rb, uint32(descBits))
	m.Write64(rb+8, descs)
	m.Write64(rb+16, infos)
	m.Write64(rb+24, id)
	m.Write64(rb+32, (id-min(uint64(len(msgs)), count)+1)&mask)
	m.Write32(rb+48, uint32(dataBits))
	m.Write64(rb+56, data)
	prb := m.Put(le.AppendUint64(nil, rb))
	m.Symbol("prb", 'd', prb)
	m.Info("SYMBOL(prb)=%x", prb)
	for _, l := range []string{
		"OFFSET(printk_ringbuffer.desc_ring)=0", "OFFSET(printk_ringbuffer.text_data_ring)=48",
		"OFFSET(prb_desc_ring.count_bits)=0", "OFFSET(prb_desc_ring.descs)=8", "OFFSET(prb_desc_ring.infos)=16",
		"OFFSET(prb_desc_ring.head_id)=24", "OFFSET(prb_desc_ring.tail_id)=32",
		"SIZE(prb_desc)=24", "OFFSET(prb_desc.state_var)=0", "OFFSET(prb_desc.text_blk_lpos)=8",
		"OFFSET(prb_data_blk_lpos.begin)=0", "OFFSET(prb_data_blk_lpos.next)=8",
		"SIZE(printk_info)=88", "OFFSET(printk_info.seq)=0", "OFFSET(printk_info.ts_nsec)=8",
		"OFFSET(printk_info.text_len)=16", "OFFSET(printk_info.caller_id)=20",
		"OFFSET(prb_data_ring.size_bits)=0", "OFFSET(prb_data_ring.data)=8", "OFFSET(atomic_long_t.counter)=0",
	} {
		m.Info("%s", l)
	}
	return rb
}

// LogBuf writes the log of kernels before 5.10 into a buffer of that size, and its
// layout into VMCOREINFO. With callers, records have a caller_id.
func (m *Machine) LogBuf(size int, callers bool, msgs ...Message) (buf uint64) {
	head := 16
	if callers {
		head = 20
	}
	type record struct {
		at, len int
	}
	content := make([]byte, size)
	var live []record
	next := 0
	for _, msg := range msgs {
		n := (head + len(msg.Text) + 3) &^ 3
		if next+n+head > size {
			clear(content[next:min(next+head, size)]) // a record of length 0 wraps
			live = slices.DeleteFunc(live, func(r record) bool { return r.at >= next })
			next = 0
		}
		live = slices.DeleteFunc(live, func(r record) bool { return r.at < next+n+head && r.at+r.len > next })
		rec := le.AppendUint64(nil, msg.NSec)
		rec = le.AppendUint16(rec, uint16(n))
		rec = le.AppendUint16(rec, uint16(len(msg.Text)))
		rec = append(rec, 0, 0, 0, msg.Level<<5)
		if callers {
			rec = le.AppendUint32(rec, msg.Caller)
		}
		copy(content[next:], append(rec, msg.Text...))
		live = append(live, record{next, n})
		next += n
	}
	buf = m.Put(content)
	first := 0
	if len(live) > 0 {
		first = live[0].at
	}
	for _, s := range []struct {
		name string
		v    uint64
	}{{"log_buf", buf}, {"log_buf_len", uint64(size)}, {"log_first_idx", uint64(first)}, {"log_next_idx", uint64(next)}} {
		m.Info("SYMBOL(%s)=%x", s.name, m.Put(le.AppendUint64(nil, s.v)))
	}
	m.Info("SIZE(printk_log)=%d", head)
	for _, l := range []string{"OFFSET(printk_log.ts_nsec)=0", "OFFSET(printk_log.len)=8", "OFFSET(printk_log.text_len)=10", "OFFSET(printk_log.dict_len)=12"} {
		m.Info("%s", l)
	}
	return buf
}
