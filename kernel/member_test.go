package kernel

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"

	"inquest/vmcore"
)

func TestPlaceAt(t *testing.T) {
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	u64 := &btf.Int{Name: "unsigned long", Size: 8}
	lock := &btf.Struct{Name: "lock", Size: 8, Members: []btf.Member{{Name: "cnts", Type: u32}, {Name: "wait_lock", Type: u32, Offset: 32}}}
	common := &btf.Struct{Name: "common", Size: 16, Members: []btf.Member{
		{Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "pair", Type: u64}, {Type: &btf.Struct{Size: 8, Members: []btf.Member{
			{Name: "daddr", Type: u32}, {Name: "saddr", Type: u32, Offset: 32}}}}}}},
		{Name: "state", Type: u32, Offset: 64},
	}}
	sock := &btf.Struct{Name: "sock", Size: 64, Members: []btf.Member{
		{Name: "base", Type: common},
		{Name: "locks", Type: &btf.Array{Type: lock, Nelems: 4}, Offset: 128},
	}}
	tests := []struct {
		offset uint64
		path   string
		rest   uint64
		ok     bool
	}{
		{0, "base.pair", 0, true},
		{4, "base.saddr", 0, true},
		{2, "base.pair", 2, true},
		{8, "base.state", 0, true},
		{12, "", 0, false}, // a hole
		{16, "locks[0].cnts", 0, true},
		{30, "locks[1].wait_lock", 2, true},
		{48, "", 0, false},
		{64, "", 0, false}, // past the end
	}
	for _, tt := range tests {
		got, ok := PlaceAt(sock, tt.offset)
		if ok != tt.ok || ok && (got.Path != tt.path || got.Rest != tt.rest) {
			t.Errorf("at %d: %q+%d, %v; want %q+%d, %v", tt.offset, got.Path, got.Rest, ok, tt.path, tt.rest, tt.ok)
		}
	}
	if got, want := FirstMembers(sock), []string{"sock", "common"}; !slices.Equal(got, want) {
		t.Errorf("first members %v, want %v", got, want)
	}
}

// TestStructsOfSize looks structs up by size in the BTF of a real kernel.
func TestStructsOfSize(t *testing.T) {
	d, err := vmcore.Open("../testdata/example.kdump")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	k, err := Open(d)
	if err != nil {
		t.Fatal(err)
	}
	types, err := k.Types()
	if err != nil {
		t.Fatal(err)
	}
	size, err := k.SizeOf("struct tcp_request_sock")
	if err != nil {
		t.Fatal(err)
	}
	names := types.StructsOfSize(size, "")
	if !slices.Contains(names, "tcp_request_sock") || slices.Contains(names, "sock") {
		t.Errorf("structs of %d bytes: %v", size, names)
	}
}
