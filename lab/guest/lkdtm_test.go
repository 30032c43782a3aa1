//go:build linux

package guest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestLKDTMTriggers(t *testing.T) {
	for _, tt := range []struct {
		list string
		want []string
	}{
		{"Available crash types:\nPANIC\nBUG\nWRITE_RO\n", []string{"PANIC", "BUG", "WRITE_RO"}},
		{"Available crash types:\n", nil},
		{"", nil},
	} {
		if diff := cmp.Diff(tt.want, lkdtmTriggers(tt.list), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q: %s", tt.list, diff)
		}
	}
}
