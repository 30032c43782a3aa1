package explain_test

import (
	"strings"
	"testing"

	"inquest/explain"
	"inquest/kernel"
	"inquest/vmcore"
)

// TestConfuse takes real crashes of known cause: the first finding must be just that,
// and its evidence must name the object.
func TestConfuse(t *testing.T) {
	for _, test := range []struct {
		dump       string
		class      explain.Class
		confidence explain.Confidence
		title      string
		cache, typ string
		evidence   []string
		known      string // the known bug that it is
	}{
		{
			"confuse-container", explain.TypeConfusion, explain.Certain,
			"the work of a probe was taken for the work of a session in session_work", "confuse_probe", "probe",
			[]string{"the struct would begin 208 bytes in front of it", "session.ops would be at", "a probe's samples[0]"}, "",
		},
		{
			"confuse-overflow", explain.OutOfBounds, explain.Likely,
			"a ticket was overwritten from the object in front of it, then used in ticket_check", "confuse_ticket", "ticket",
			[]string{"root; xxx", "the run begins at its ticket.holder[0]"}, "",
		},
		{
			"confuse-freed", explain.UseAfterFree, explain.Likely,
			"use of a freed ticket in ticket_check", "confuse_ticket", "ticket",
			[]string{"t->ops", "the object is free, on CPU", "SLUB's pointer to the next free one"}, "",
		},
		{
			"freed-before", explain.UseAfterFree, explain.Certain,
			"use of a victim in crash_uaf, which had freed it before", "crasher_victim", "victim",
			[]string{"crash_uaf called kmem_cache_free", "victim.target", "the only object of slab cache crasher_victim that holds 0x4141414141414141"}, "",
		},
		{
			"called-back", explain.TypeConfusion, explain.Likely,
			"a tcp_request_sock was taken for a sock in __sk_destruct", "request_sock_TCP", "tcp_request_sock",
			[]string{"minus 0x2c8, where struct sock has its struct callback_head", "sk_error_report"},
			"nf-queue-request-sock", // of which nothing is on the stack: what was confused, and the code, say it
		},
	} {
		t.Run(test.dump, func(t *testing.T) {
			d, err := vmcore.Open("testdata/" + test.dump + ".kdump")
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
			all := c.Findings()
			if len(all) == 0 {
				t.Fatal("no findings")
			}
			f := all[0]
			if f.Class != test.class || f.Title != test.title || f.Confidence < test.confidence {
				t.Errorf("found %s, %s: %s", f.Class, f.Confidence, f.Title)
			}
			if len(f.Objects) == 0 || f.Objects[0].Cache != test.cache || f.Objects[0].Type != test.typ {
				t.Errorf("objects %+v", f.Objects)
			}
			known := ""
			if f.Advisory != nil {
				known = f.Advisory.ID
			}
			if known != test.known {
				t.Errorf("known as %q, want %q", known, test.known)
			}
			var text strings.Builder
			for _, e := range f.Evidence {
				text.WriteString(e.Text + "\n")
			}
			for _, want := range test.evidence {
				if !strings.Contains(text.String(), want) {
					t.Errorf("no %q in\n%s", want, &text)
				}
			}
		})
	}
}
