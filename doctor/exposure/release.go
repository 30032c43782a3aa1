package exposure

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"inquest/advisory"
)

// ID is what a kernel calls itself.
type ID struct {
	Release string // uname -r: "5.10.0-43-cloud-amd64"
	Banner  string // /proc/version; "" if not known
	Base    string // the upstream version that it is made of, "" if it is not said
	Vendor  Vendor // who changed it
	Package string // Debian's version of it, "5.10.251-5"; "" elsewhere
}

// Vendor is a distribution, as far as a version tells.
type Vendor string

// The vendors whose versions are known. What they add to the version says nothing of
// upstream's fixes, but for Debian and Ubuntu, whose kernels name the upstream version.
const (
	Upstream Vendor = ""
	RHEL     Vendor = "rhel" // and CentOS, Rocky, Alma, Oracle's compatible one
	Debian   Vendor = "debian"
	Ubuntu   Vendor = "ubuntu"
	SUSE     Vendor = "suse"
	Amazon   Vendor = "amazon"
)

var (
	releaseVersion = regexp.MustCompile(`^([0-9]{1,5}\.[0-9]{1,5}(?:\.[0-9]{1,5})?)`)
	redHat         = regexp.MustCompile(`\.el[0-9]+`)
	debianPackage  = regexp.MustCompile(`Debian ([0-9]\S{0,63})`)
	debianVersion  = regexp.MustCompile(`Debian ([0-9]{1,5}\.[0-9]{1,5}(?:\.[0-9]{1,5})?)[-~+]`)
	ubuntuVersion  = regexp.MustCompile(`^Ubuntu \S+ ([0-9]{1,5}\.[0-9]{1,5}(?:\.[0-9]{1,5})?)`)
	suseRelease    = regexp.MustCompile(`-[0-9]+(\.[0-9]+)*-(default|azure|rt|preempt|vanilla|kvmsmall|longterm)$`)
	amazonRelease  = regexp.MustCompile(`\.amzn[0-9]+`)
)

// ReadID reads how a machine's kernel calls itself.
func ReadID(files fs.FS) (ID, error) {
	version, versionErr := fs.ReadFile(files, "proc/version")
	release, err := fs.ReadFile(files, "proc/sys/kernel/osrelease")
	signature, _ := fs.ReadFile(files, "proc/version_signature") // Ubuntu's
	id := NewID(strings.TrimSpace(string(release)), strings.TrimSpace(string(version)), strings.TrimSpace(string(signature)))
	if id.Release == "" {
		return id, fmt.Errorf("which kernel runs is not known: %w", cmp.Or(versionErr, err, errors.New("/proc/version is empty")))
	}
	return id, nil
}

// NewID understands a release, a banner, and Ubuntu's signature, any of which may be "".
func NewID(release, banner, signature string) ID {
	if release == "" {
		if f := strings.Fields(banner); len(f) > 2 && f[0] == "Linux" {
			release = f[2]
		}
	}
	id := ID{Release: release, Banner: banner}
	first := func(re *regexp.Regexp, s string) string {
		if m := re.FindStringSubmatch(s); m != nil {
			return m[1]
		}
		return ""
	}
	id.Base = first(releaseVersion, release)
	// In front of the build's number stands the compiler, which has a version of Debian, too.
	_, built, _ := strings.Cut(banner, ") #")
	switch {
	case redHat.MatchString(release):
		id.Vendor = RHEL
	case amazonRelease.MatchString(release):
		id.Vendor = Amazon
	case first(debianVersion, built) != "":
		id.Vendor, id.Base, id.Package = Debian, first(debianVersion, built), first(debianPackage, built)
	case signature != "" || strings.Contains(built, "-Ubuntu "):
		id.Vendor, id.Base = Ubuntu, first(ubuntuVersion, signature)
	case suseRelease.MatchString(release):
		id.Vendor = SUSE
	}
	return id
}

// String is the version as the guess takes it.
func (id ID) String() string {
	if id.Base != "" && !strings.HasPrefix(id.Release, id.Base) {
		return fmt.Sprintf("%s, which is %s", id.Release, id.Base)
	}
	return id.Release
}

// guess decides by the version what can be decided.
func (id ID) guess(a *advisory.Advisory) advisory.Verdict {
	verdict := func(s advisory.State, format string, args ...any) advisory.Verdict {
		return advisory.Verdict{State: s, Reason: fmt.Sprintf(format, args...)}
	}
	base, ok := parseVersion(id.Base)
	if !ok {
		return advisory.Verdict{}
	}
	if since, ok := parseVersion(a.Introduced.Version); ok && slices.Compare(base, since) < 0 && id.Vendor != RHEL && id.Vendor != SUSE {
		return verdict(advisory.Fixed, "%s is older than the bug, which came with %s", id.Base, a.Introduced.Version)
	}
	if fixed, ok := parseVersion(a.Fixed[0].Version); ok && slices.Compare(base, fixed) >= 0 {
		return verdict(advisory.Fixed, "%s has the fix, which came with %s", id.Base, a.Fixed[0].Version)
	}
	if v, ok := id.vendorGuess(a); ok {
		return v
	}
	if id.Vendor == RHEL || id.Vendor == SUSE || id.Vendor == Amazon {
		return advisory.Verdict{} // they fix what they like
	}
	for _, s := range a.Stable {
		v, ok := parseVersion(s)
		if !ok || !slices.Equal(v[:2], base[:2]) {
			continue
		}
		if slices.Compare(base, v) >= 0 {
			return verdict(advisory.Fixed, "%s has the fix, which came to its series with %s", id.Base, s)
		}
		return verdict(advisory.Exposed, "%s lacks the fix, which came to its series with %s", id.Base, s)
	}
	return verdict(advisory.Exposed, "%s is older than the fix of %s, and no release of its series is known to have it", id.Base, a.Fixed[0].Version)
}

// parseVersion reads "5.10.104", "6.1" and "6.1-rc3" as three numbers.
func parseVersion(s string) ([]int, bool) {
	m := releaseVersion.FindString(s)
	if m == "" {
		return nil, false
	}
	v := make([]int, 3)
	for i, part := range strings.Split(m, ".") {
		v[i], _ = strconv.Atoi(part)
	}
	return v, true
}
