package explain

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"inquest/internal/kerneltest"
)

// Types of a driver that is not: a session embeds a link and work; ops share a union
// with a cookie.
var (
	testOps     = kerneltest.Struct("session_ops", kerneltest.Field{Name: "close", Type: kerneltest.Ptr(&btf.FuncProto{Return: &btf.Void{}})})
	testWork    = kerneltest.Struct("work_struct", kerneltest.Field{Name: "data", Type: kerneltest.Ulong}, kerneltest.Field{Name: "entry", Type: kerneltest.ListHead})
	testSession = kerneltest.Struct("session",
		kerneltest.Field{Name: "id", Type: kerneltest.Ulong},
		kerneltest.Field{Name: "link", Type: kerneltest.ListHead},
		kerneltest.Field{Name: "work", Type: kerneltest.Array(testWork, 2)},
		kerneltest.Field{Name: "ops", Type: kerneltest.Ptr(testOps)},
		kerneltest.Field{Name: "u", Type: &btf.Union{Name: "", Size: 8, Members: []btf.Member{
			{Name: "cookie", Type: kerneltest.Ulong},
			{Name: "owner", Type: kerneltest.Ptr(testOps)},
		}}},
	)
)

func TestPointerMembers(t *testing.T) {
	var got []string
	for _, m := range pointerMembers(testSession) {
		path := m.path
		if m.shared {
			path += "?"
		}
		got = append(got, path)
	}
	want := "link.next link.prev work[0].entry.next work[0].entry.prev work[1].entry.next work[1].entry.prev ops u.owner?"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("pointers:\n%s\nwant\n%s", s, want)
	}
}

func TestMemberOfType(t *testing.T) {
	for _, test := range []struct {
		offset uint64
		want   *btf.Struct
		path   string
		ok     bool
	}{
		{0, testSession, "", true},
		{8, kerneltest.ListHead, "link", true},
		{16, kerneltest.ListHead, "", false}, // in the middle of it
		{24, testWork, "work[0]", true},
		{48, testWork, "work[1]", true},
		{56, kerneltest.ListHead, "work[1].entry", true},
		{0, testWork, "", false},
		{24, kerneltest.ListHead, "", false},
		{1 << 40, testWork, "", false},
		{24, &btf.Struct{Name: "work_struct", Size: 40}, "", false}, // another one of that name
	} {
		path, ok := memberOfType(testSession, test.offset, test.want)
		if path != test.path && ok || ok != test.ok {
			t.Errorf("struct %s at %d: %q, %v; want %q, %v", test.want.Name, test.offset, path, ok, test.path, test.ok)
		}
	}
}

// TestMemberOfEndlessType must end: hostile BTF can have a struct that holds itself.
func TestMemberOfEndlessType(t *testing.T) {
	s := &btf.Struct{Name: "loop", Size: 8}
	s.Members = []btf.Member{{Name: "again", Type: s}, {Name: "more", Type: s}}
	if path, ok := memberOfType(s, 0, testWork); ok {
		t.Errorf("found %q", path)
	}
	if all := pointerMembers(s); len(all) != 0 {
		t.Errorf("found %d pointers", len(all))
	}
}

func TestNamedAfter(t *testing.T) {
	for _, test := range []struct {
		cache, typ, modules string
		want                bool
	}{
		{"task_struct", "task_struct", "", true},
		{"request_sock_TCP", "tcp_request_sock", "", true},
		{"ext4_inode_cache", "inode", "ext4", true},
		{"ext4_inode_cache", "inode", "", false},
		{"ext4_inode_cache", "ext4_inode_info", "ext4", false},
		{"confuse_probe", "probe", "confuse", true},
		{"confuse_probe", "probe", "nfnetlink_queue", false},
		{"kmalloc-64", "page", "", false},
		{"dentry", "dentry", "", true},
		{"dentry", "", "", false},
		{"names_cache", "names_names", "", false},
	} {
		if got := namedAfter(test.cache, test.typ, strings.Fields(test.modules)); got != test.want {
			t.Errorf("namedAfter(%s, %s, %s) = %v", test.cache, test.typ, test.modules, got)
		}
	}
}

func TestRun(t *testing.T) {
	for _, test := range []struct {
		b        string
		at       int
		text     bool
		from, to int
	}{
		{"\x00\x01root; xxxxxxxxxx\x00", 10, true, 2, 18},
		{"\x00\x01root; xxxxxxxxxx\x00", 10, false, 8, 18},
		{"\x00\x01root; xxxxxxxxxx\x00", 0, true, 0, 0},
		{"AAAAAAAAAAAAAAAA", 8, false, 0, 16},
		{"\x00\x00\x00\x00\x00\x00\x00\x00", 4, false, 4, 4}, // zeroes are no sign
		{"kkkkkkkkkkkkkkkk", 8, false, 8, 8},                 // POISON_FREE
		{"\xfd\xfd\xfd\xfd\xfd\xfd\xfd\xfd\x01", 2, false, 0, 8},
	} {
		if from, to := run([]byte(test.b), test.at, test.text); from != test.from || to != test.to {
			t.Errorf("run(%q, %d, %v) = %d, %d; want %d, %d", test.b, test.at, test.text, from, to, test.from, test.to)
		}
	}
}
