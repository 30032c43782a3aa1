package exposure

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"inquest/advisory"
)

// vendorGuess decides by what is known of a distribution's kernels. Series of Debian and
// Ubuntu are named by the release, "debian/11", others by a pattern of what uname -r says.
func (id ID) vendorGuess(a *advisory.Advisory) (advisory.Verdict, bool) {
	for _, v := range a.Vendors {
		mine, fixed := id.buildNumbers(), numbersOf(v.Fixed)
		if name, _, ok := strings.Cut(v.Series, "/"); ok {
			// Which release of the distribution it is from, the kernel does not say; each
			// has its own series.
			if Vendor(name) != id.Vendor || len(mine) < 3 || len(fixed) < 3 || !slices.Equal(mine[:2], fixed[:2]) {
				continue
			}
		} else if ok, err := path.Match(v.Series+"*", id.Release); err != nil || !ok {
			continue
		}
		// 5.15.0-25-generic is of any build of 5.15.0-25.
		fixed = fixed[:min(len(fixed), max(len(mine), 3))]
		if slices.Compare(mine, fixed) >= 0 {
			return advisory.Verdict{State: advisory.Fixed, Reason: fmt.Sprintf("%s has the fix, which came to %s with %s", id, v.Series, v.Fixed)}, true
		}
		return advisory.Verdict{State: advisory.Exposed, Reason: fmt.Sprintf("%s is older than %s, with which the fix came to %s", id, v.Fixed, v.Series)}, true
	}
	return advisory.Verdict{}, false
}

// buildNumbers are those that the distribution counts its kernels by.
func (id ID) buildNumbers() []int {
	if id.Package != "" {
		return numbersOf(id.Package)
	}
	return numbersOf(id.Release)
}

// numbersOf are the numbers that a version begins with: 4, 18, 0, 305, 3 and 1 of
// "4.18.0-305.3.1.el8.x86_64".
func numbersOf(version string) []int {
	var all []int
	for part := range strings.FieldsFuncSeq(version, func(r rune) bool { return r == '.' || r == '-' || r == '+' || r == '~' }) {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			break
		}
		all = append(all, n)
	}
	return all
}
