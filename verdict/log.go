package verdict

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"inquest/inspect/app"
)

// NewLogger makes the daemon's logger.
func NewLogger(w io.Writer, c Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.JSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// entry is one packet that a rule wants to be logged. It goes through a channel: whoever
// reads the log may be slow, and packets do not wait for that.
type entry struct {
	level         slog.Level
	message       string // "" for ours
	rule, verdict string
	hook          string
	proto         uint8
	src, dst      netip.AddrPort // of the flow's first packet
	in, out       string
	facts         []slog.Attr
	suppressed    uint64 // entries of this rule that were left out before this one
}

// describe is what is known of a flow's application protocol, as the log has it.
func describe(f *app.Facts) []slog.Attr {
	if f.Proto == app.ProtoUnknown {
		return nil
	}
	attrs := []slog.Attr{slog.String("app", f.Proto.String())}
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("sni", f.TLS.SNI+f.QUIC.SNI)
	add("ja4", f.TLS.JA4+f.QUIC.JA4)
	add("method", f.HTTP.Method)
	add("host", f.HTTP.Host)
	add("path", f.HTTP.Path)
	add("dns", strings.Join(f.DNS.Names, " "))
	add("ssh", f.SSH.Client.Software)
	return attrs
}

// logger writes entries.
type logger struct {
	log     *slog.Logger
	entries chan entry
	lost    atomic.Uint64 // entries that found the channel full
}

// backlog is how many entries may wait to be written.
const backlog = 4096

func newLogger(log *slog.Logger) *logger {
	return &logger{log: log, entries: make(chan entry, backlog)}
}

// put never waits.
func (l *logger) put(e entry) {
	select {
	case l.entries <- e:
	default:
		l.lost.Add(1)
	}
}

// run writes what comes until the channel is closed.
func (l *logger) run() {
	for e := range l.entries {
		attrs := []slog.Attr{
			slog.String("rule", e.rule), slog.String("verdict", e.verdict), slog.String("hook", e.hook),
			slog.String("proto", ProtocolName(e.proto)), slog.String("src", addrText(e.src)), slog.String("dst", addrText(e.dst)),
		}
		if e.in != "" {
			attrs = append(attrs, slog.String("in", e.in))
		}
		if e.out != "" {
			attrs = append(attrs, slog.String("out", e.out))
		}
		attrs = append(attrs, e.facts...)
		if n := e.suppressed + l.lost.Swap(0); n > 0 {
			attrs = append(attrs, slog.Uint64("suppressed", n))
		}
		l.log.LogAttrs(context.Background(), e.level, cmp.Or(e.message, "packet"), attrs...)
	}
}

// addrText is "192.0.2.1:443", without a port of 0.
func addrText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// limiter lets so many entries a second pass, and counts the others.
type limiter struct {
	second     atomic.Int64
	passed     atomic.Int64
	suppressed atomic.Uint64
}

// allow reports whether one more entry may be written at this time, in nanoseconds, and
// how many were not since the last one.
func (l *limiter) allow(now int64, rate int) (suppressed uint64, ok bool) {
	second := now / int64(time.Second)
	if old := l.second.Load(); old != second && l.second.CompareAndSwap(old, second) {
		l.passed.Store(0)
	}
	if l.passed.Add(1) > int64(rate) {
		l.suppressed.Add(1)
		return 0, false
	}
	return l.suppressed.Swap(0), true
}

// ProtocolName is the name of a transport protocol, or its number.
func ProtocolName(proto uint8) string {
	names := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
	if name, ok := names[proto]; ok {
		return name
	}
	return strconv.Itoa(int(proto))
}
