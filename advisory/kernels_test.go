//go:build kernels

package advisory_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"inquest/advisory"
	"inquest/lab"
)

// The kernels that Debian has now, and the oldest that its archive keeps: what the
// advisories say of them is what the changelogs of the packages say.
func TestDebian(t *testing.T) {
	all, err := advisory.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	// The bugs that 5.10.218-1 has; all others are fixed in it, or were never in it.
	old := []string{"fcntl-close-race", "memcg-oom-soft-lockup", "reqsk-timer-pending", "tun-short-frame"}
	for _, tt := range []struct {
		kernel  string
		exposed []string
	}{
		{"linux-image-5.10.0-30-cloud-amd64/bullseye", old},
		{"linux-image-cloud-amd64/bullseye", nil},
		{"linux-image-cloud-amd64/bookworm", nil},
		{"linux-image-cloud-amd64/trixie", nil},
		{"linux-image-cloud-amd64/sid", nil},
		{"linux-image-amd64/trixie", nil},
		{"linux-image-rt-amd64/trixie", nil},
	} {
		k, err := lab.FindKernel(ctx, tt.kernel, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		img := advisory.OpenImage(t, k.Image, k.Modules, all)
		decided := 0
		for _, a := range all {
			v := a.CheckCode(img)
			if exposed := slices.Contains(tt.exposed, a.ID); (v.State == advisory.Exposed) != exposed {
				t.Errorf("%s (%s): %s is %v: %s", tt.kernel, k.Release, a.ID, v.State, v.Reason)
			}
			if v.State != advisory.Undecided {
				decided++
			}
			t.Logf("%-32s %-26s %-8v %s", k.Release, a.ID, v.State, v.Reason)
		}
		if decided < len(all)-3 { // cloud kernels have no ixgbe, newer ones no 32-bit iptables
			t.Errorf("%s: only %d of %d advisories are decided", tt.kernel, decided, len(all))
		}
	}
}
