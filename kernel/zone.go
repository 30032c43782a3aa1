package kernel

import (
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// Zone is a zone of a NUMA node's memory: struct zone. Sizes are in pages.
type Zone struct {
	Object
	Node, Index int
	Name        string
	Spanned     uint64 // with holes; 0 for a zone without memory
	Present     uint64
	Managed     uint64    // by the page allocator
	Watermarks  [3]uint64 // min, low, high
	Stats       []Stat    // of enum zone_stat_item
	Err         error     // why some of it may be missing
}

// maxNodes is MAX_NUMNODES with CONFIG_NODES_SHIFT=10.
const maxNodes = 1024

// Zones returns the zones of all nodes.
func (k *Kernel) Zones() ([]*Zone, error) {
	nodes, err := k.nodeData()
	if err != nil {
		return nil, err
	}
	var list []*Zone
	var first error
	for _, at := range nodes {
		node, err := k.Object("pglist_data", at)
		if err != nil {
			return nil, err
		}
		id, err := node.Uint("node_id")
		if err != nil && first == nil {
			first = fmt.Errorf("read pglist_data at %v: %w", at, err)
		}
		zones, err := node.Member("node_zones")
		if err != nil {
			return nil, err
		}
		array, ok := btf.UnderlyingType(zones.Type).(*btf.Array)
		if !ok || array.Nelems > 16 {
			return nil, fmt.Errorf("pglist_data.node_zones is %s: %w", TypeName(zones.Type), ErrCorrupt)
		}
		for i := range int(array.Nelems) {
			o, err := zones.Index(i)
			if err != nil {
				return nil, err
			}
			z := &Zone{Object: o, Node: int(id), Index: i}
			if err := z.read(); err != nil {
				z.Err = fmt.Errorf("zone %v: %w", o.Addr, err)
			}
			list = append(list, z)
		}
	}
	return list, first
}

// nodeData returns the address of each node's struct pglist_data.
func (k *Kernel) nodeData() ([]Addr, error) {
	table, err := k.Symbol("node_data")
	if err != nil {
		one, err := k.Symbol("contig_page_data") // without CONFIG_NUMA
		return []Addr{one}, err
	}
	n := uint32(maxNodes)
	if at, err := k.Symbol("nr_node_ids"); err == nil {
		if n, err = k.U32(at); err != nil {
			return nil, fmt.Errorf("read nr_node_ids: %w", err)
		}
	}
	var nodes []Addr
	for i := range min(n, maxNodes) {
		at, err := k.Pointer(table + Addr(8*i))
		if err != nil {
			return nodes, fmt.Errorf("read node_data: %w", err)
		}
		if at != 0 {
			nodes = append(nodes, at)
		}
	}
	return nodes, nil
}

func (z *Zone) read() error {
	name, err := z.Pointer("name")
	if err != nil {
		return err
	}
	if z.Name, err = z.k.CString(name, 64); err != nil {
		return err
	}
	for _, m := range []struct {
		path string
		to   *uint64
	}{
		{"spanned_pages", &z.Spanned}, {"present_pages", &z.Present}, {"managed_pages", &z.Managed},
		{"_watermark[0]", &z.Watermarks[0]}, {"_watermark[1]", &z.Watermarks[1]}, {"_watermark[2]", &z.Watermarks[2]},
	} {
		if *m.to, err = z.Uint(m.path); err != nil {
			return err
		}
	}
	stats, err := z.AddrOf("vm_stat")
	if err != nil {
		return err
	}
	z.Stats, err = z.k.statsAt(stats, "zone_stat_item")
	return err
}
