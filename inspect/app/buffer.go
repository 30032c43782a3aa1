package app

import (
	"strings"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"
)

// Budget bounds the bytes that the parsers of many flows hold together. A parser
// that finds it spent gives its flow up: Facts.Gap is set, and what is absent is final.
type Budget struct {
	limit int64
	held  atomic.Int64
}

// NewBudget is a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Held is how many bytes are taken.
func (b *Budget) Held() int64 { return b.held.Load() }

func (b *Budget) take(n int) bool {
	if b == nil {
		return true
	}
	if b.held.Add(int64(n)) > b.limit {
		b.held.Add(int64(-n))
		return false
	}
	return true
}

func (b *Budget) give(n int) {
	if b != nil {
		b.held.Add(int64(-n))
	}
}

// buffer holds what came of a message that is not complete yet.
type buffer struct {
	b      []byte
	budget *Budget
	taken  int // of the budget: cap(b), when b belongs to a flow
}

// keepBuffer is the size up to which a buffer is kept for the next flow.
const keepBuffer = 4 << 10

// add appends data unless the buffer would outgrow limit or the budget.
func (b *buffer) add(data []byte, limit int) bool {
	if !b.grow(len(b.b)+len(data), limit) {
		return false
	}
	b.b = append(b.b, data...)
	return true
}

// grow makes room for size bytes in all.
func (b *buffer) grow(size, limit int) bool {
	if size > limit {
		return false
	}
	want := cap(b.b)
	if size > want {
		want = min(max(size, 2*want, 512), limit)
	}
	if want > b.taken {
		if !b.budget.take(want - b.taken) {
			return false
		}
		b.taken = want
	}
	if want > cap(b.b) {
		b.b = append(make([]byte, 0, want), b.b...)
	}
	return true
}

// free empties the buffer and gives back what it took of the budget.
func (b *buffer) free() {
	b.budget.give(b.taken)
	b.taken = 0
	if cap(b.b) > keepBuffer {
		b.b = nil
	}
	b.b = b.b[:0]
}

// text copies bytes from the wire into a string that is valid UTF-8.
func text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if !utf8.Valid(b) {
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return string(b)
}

// hostText is text for the name of a host: lower case, without a trailing dot, so
// that neither is a way around a rule.
func hostText(b []byte) string {
	return strings.TrimSuffix(lowerText(b), ".")
}

// lowerText is text with ASCII letters in lower case.
func lowerText(b []byte) string {
	for _, c := range b {
		if 'A' <= c && c <= 'Z' {
			lower := make([]byte, len(b))
			for i, c := range b {
				lower[i] = lowerByte(c)
			}
			if utf8.Valid(lower) {
				return unsafe.String(unsafe.SliceData(lower), len(lower))
			}
			return text(lower)
		}
	}
	return text(b)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// equalFold reports whether b is the lower-case ASCII string s in any case.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if lowerByte(c) != s[i] {
			return false
		}
	}
	return true
}
