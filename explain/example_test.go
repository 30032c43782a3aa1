package explain_test

import (
	"testing"

	"inquest/explain"
	"inquest/kernel"
	"inquest/vmcore"
)

// TestExamples asks for the cause of each example crash.
func TestExamples(t *testing.T) {
	tests := []struct {
		dump       string
		class      explain.Class
		confidence explain.Confidence
		title      string
		advisory   string
		object     string // the type of the first object
		member     string // the member used past the end, of the first overrun
	}{
		{"example", explain.TypeConfusion, explain.Certain, "a tcp_request_sock was taken for a sock in nf_queue_entry_release_refs",
			"nf-queue-request-sock", "tcp_request_sock", "sock.sk_callback_lock.raw_lock.wait_lock.val.counter"},
		{"refcount", explain.TypeConfusion, explain.Likely, "a tcp_request_sock was taken for a sock in nf_queue_entry_release_refs",
			"nf-queue-request-sock", "tcp_request_sock", "sock.sk_wmem_alloc.refs.counter"},
		{"list-add", explain.ListCorruption, explain.Certain, "corrupted list, found when adding to it in lkdtm_CORRUPT_LIST_ADD", "", "", ""},
		{"null-deref", explain.NullDereference, explain.Certain, "NULL pointer dereference in lkdtm_EXCEPTION", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.dump, func(t *testing.T) {
			d, err := vmcore.Open("../testdata/" + tt.dump + ".kdump")
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			k, err := kernel.Open(d)
			if err != nil {
				t.Fatal(err)
			}
			c, err := explain.New(k)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Crash.Doubts) > 0 {
				t.Errorf("doubts: %q", c.Crash.Doubts)
			}
			findings := c.Findings()
			if len(findings) == 0 {
				t.Fatal("no findings")
			}
			f := findings[0]
			if f.Class != tt.class || f.Confidence != tt.confidence || f.Title != tt.title {
				t.Errorf("%s, %s: %q\nwant %s, %s: %q", f.Class, f.Confidence, f.Title, tt.class, tt.confidence, tt.title)
			}
			if id := ""; f.Advisory != nil {
				if id = f.Advisory.ID; id != tt.advisory {
					t.Errorf("advisory %q, want %q", id, tt.advisory)
				}
			} else if tt.advisory != "" {
				t.Errorf("no advisory, want %q", tt.advisory)
			}
			if tt.object == "" {
				return
			}
			if f.Objects[0].Type != tt.object || f.Overrun[0].Member != tt.member {
				t.Errorf("object %s, overrun %s; want %s, %s", f.Objects[0].Type, f.Overrun[0].Member, tt.object, tt.member)
			}
			for _, other := range findings[1:] {
				if other.Class == explain.TypeConfusion {
					t.Errorf("a second confusion: %s", other.Title)
				}
			}
		})
	}
}
