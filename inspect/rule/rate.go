package rule

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Rate limits how often a rule matches.
type Rate struct {
	Events int           // so many
	Per    time.Duration // in this time
	Burst  int           // and so many at once
	Over   bool          // the rule matches what is over the limit, not what is within
	Of     Share
}

// Share is what has a limit of its own.
type Share uint8

// The shares.
const (
	PerRule        Share = iota // one limit for all that the rule matches
	PerSource                   // one for each source address
	PerDestination              // one for each destination address
	PerFlow                     // one for each flow
)

var shareNames = [...]string{"rule", "src", "dst", "flow"}

// String is the share as it is written in a file.
func (s Share) String() string {
	if int(s) < len(shareNames) {
		return shareNames[s]
	}
	return strconv.Itoa(int(s))
}

// MarshalText writes the share as [Share.String] does.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var rateUnits = map[string]time.Duration{
	"s": time.Second, "sec": time.Second, "second": time.Second,
	"min": time.Minute, "m": time.Minute, "minute": time.Minute,
	"h": time.Hour, "hour": time.Hour, "day": 24 * time.Hour, "d": 24 * time.Hour,
}

// maxRate bounds the numbers in a rate.
const maxRate = 1_000_000_000

// parseRate reads "100/s", "10/min burst 20", "over 5/s".
func parseRate(text string) (Rate, error) {
	words := strings.Fields(text)
	var r Rate
	if len(words) > 0 && words[0] == "over" {
		r.Over, words = true, words[1:]
	}
	bad := fmt.Errorf(`%q is no rate: write 100/s, 10/min burst 20, or over 5/s`, text)
	if len(words) != 1 && (len(words) != 3 || words[1] != "burst") {
		return r, bad
	}
	count, unit, _ := strings.Cut(words[0], "/")
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxRate || rateUnits[unit] == 0 {
		return r, bad
	}
	r.Events, r.Per, r.Burst = n, rateUnits[unit], 5 // the burst that iptables and nftables have by default
	if len(words) == 3 {
		if r.Burst, err = strconv.Atoi(words[2]); err != nil || r.Burst < 1 || r.Burst > maxRate {
			return r, bad
		}
	}
	return r, nil
}

// String is the rate as it is written in a file.
func (r Rate) String() string {
	per := map[time.Duration]string{time.Second: "s", time.Minute: "min", time.Hour: "hour", 24 * time.Hour: "day"}[r.Per]
	text := fmt.Sprintf("%d/%s burst %d", r.Events, per, r.Burst)
	if r.Over {
		text = "over " + text
	}
	return text
}

// MarshalText writes the rate as a file has it, with what has a limit of its own.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String() + " per " + r.Of.String()), nil }

// limiter is a token bucket in the form of the generic cell rate algorithm (ITU-T
// I.371): all of its state is one time, that at which the bucket will be full again.
type limiter struct {
	step      int64 // nanoseconds that one packet costs
	tolerance int64 // how far ahead of now the bucket's time may be
	over      bool
	of        Share
	id        uint32 // tells the rules apart in the table
	full      atomic.Int64
	table     *bucketTable
}

// maxTolerance, 36 years, keeps times from overflowing.
const maxTolerance = 1 << 60

func newLimiter(r Rate, id int, table *bucketTable) *limiter {
	step := max(int64(r.Per)/int64(r.Events), 1)
	tolerance := int64(maxTolerance)
	if int64(r.Burst) < maxTolerance/step {
		tolerance = step * int64(r.Burst-1)
	}
	return &limiter{step: step, tolerance: tolerance, over: r.Over, of: r.Of, id: uint32(id), table: table}
}

// matches takes one packet at the time now, in nanoseconds, and tells whether the rule
// matches it.
func (l *limiter) matches(m *machine, now int64) bool {
	if l.of != PerRule {
		return l.table.take(l, l.key(m), now) != l.over
	}
	for {
		full := l.full.Load()
		next, ok := l.take(full, now)
		if !ok || l.full.CompareAndSwap(full, next) {
			return ok != l.over
		}
	}
}

// take is when a bucket that is full again at the time full will be so after one more
// packet, and whether that packet is within the limit.
func (l *limiter) take(full, now int64) (next int64, ok bool) {
	full = max(full, now)
	if full-now > l.tolerance {
		return full, false
	}
	return full + l.step, true
}

// key tells the shares of a rule apart.
func (l *limiter) key(m *machine) uint64 {
	var b [44]byte
	binary.LittleEndian.PutUint32(b[:], l.id)
	src, dst := m.tuple.Src.As16(), m.tuple.Dst.As16()
	switch l.of {
	case PerSource:
		copy(b[8:], src[:])
	case PerDestination:
		copy(b[8:], dst[:])
	case PerFlow:
		t := &m.tuple
		copy(b[8:], src[:])
		copy(b[24:], dst[:])
		binary.LittleEndian.PutUint16(b[40:], t.SrcPort)
		binary.LittleEndian.PutUint16(b[42:], t.DstPort)
		b[4] = t.Proto
	}
	return maphash.Bytes(l.table.seed, b[:])
}

// bucketTable has the buckets of all shares of all rules of a set, in bounded memory:
// in each row, the bucket that is full first makes room. A bucket that is full is as
// good as none, so that only a flood of new shares makes a limit forget.
type bucketTable struct {
	seed maphash.Seed
	rows [bucketRows]bucketRow
}

const (
	bucketRows = 1 << 14
	bucketWays = 4
)

type bucketRow struct {
	lock sync.Mutex
	keys [bucketWays]uint64
	full [bucketWays]int64
}

func newBucketTable() *bucketTable { return &bucketTable{seed: maphash.MakeSeed()} }

func (t *bucketTable) take(l *limiter, key uint64, now int64) bool {
	row := &t.rows[key%bucketRows]
	row.lock.Lock()
	defer row.lock.Unlock()
	victim := 0
	for i := range row.keys {
		if row.keys[i] == key {
			var ok bool
			row.full[i], ok = l.take(row.full[i], now)
			return ok
		}
		if row.full[i] < row.full[victim] {
			victim = i
		}
	}
	row.keys[victim] = key
	var ok bool
	row.full[victim], ok = l.take(now, now)
	return ok
}
