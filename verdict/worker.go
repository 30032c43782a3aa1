package verdict

import (
	"fmt"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"inquest/inspect"
	"inquest/inspect/packet"
	"inquest/inspect/rule"
	"inquest/nfqueue"
)

// worker judges the packets of one queue, in the goroutine of that queue.
type worker struct {
	d      *Daemon
	engine *inspect.Worker
	meta   rule.Meta

	since atomic.Int64 // when the packet that is being judged came; 0 between packets

	// Of the counts only the worker makes those that the engine does not make.
	returned, panics, left atomic.Uint64
}

// handle is the nfqueue.Handler.
func (w *worker) handle(p *nfqueue.Packet) (v nfqueue.Verdict) {
	w.since.Store(p.Received)
	defer w.done(&v)
	if p.Mark&uint32(w.d.config.Mark) != 0 {
		return w.cameBack(p)
	}
	w.meta = rule.Meta{
		Mark: p.Mark, Hook: uint8(p.Hook), Queue: p.Queue,
		In: w.d.devices.name(p.In), Out: w.d.devices.name(p.Out),
		UID: p.UID, GID: p.GID, HasUID: p.HasOwner, Checksum: checksumState(p.Info),
	}
	if w.d.conntrack {
		ct, _ := p.Conntrack()
		w.meta.ConnMark = ct.Mark
	}
	decision := w.engine.Inspect(p.Payload, &w.meta, p.Received)
	return w.verdict(p, &decision)
}

// done ends the judging of a packet, also when it panicked: then daemon.fail decides,
// and the daemon goes on.
func (w *worker) done(v *nfqueue.Verdict) {
	if reason := recover(); reason != nil {
		*v = nfqueue.Verdict{} // nfqueue.Config.Default, which daemon.fail chose
		w.panics.Add(1)
		if _, ok := w.d.panics.allow(nfqueue.Now(), 1); ok {
			w.d.log.Error("a worker failed", "reason", fmt.Sprint(reason), "fail", w.d.config.Fail.String(), "stack", string(debug.Stack()))
		}
	}
	w.since.Store(0)
}

func checksumState(i nfqueue.Info) packet.ChecksumState {
	switch {
	case i&nfqueue.ChecksumNotReady != 0:
		return packet.ChecksumPartial
	case i&nfqueue.ChecksumNotVerified != 0:
		return packet.ChecksumUnverified
	}
	return packet.ChecksumVerified
}

// verdict tells the kernel in its words what was decided.
func (w *worker) verdict(p *nfqueue.Packet, d *inspect.Decision) nfqueue.Verdict {
	c := w.d.config
	if d.Log {
		w.log(p, d)
	}
	if d.Decided && !d.Cached {
		w.d.rules.Load().decided(d.Rule)
	}
	last := d.Decided && c.Shortcut
	switch d.Verdict.Kind {
	case rule.Accept:
		if last {
			return w.repeat(p, codeAccept)
		}
		return nfqueue.Accept()
	case rule.Drop:
		if last && !w.unconfirmed(d) {
			return w.repeat(p, codeDrop)
		}
		return nfqueue.Drop()
	case rule.Reject:
		return w.reject(p, d, last)
	case rule.Mark:
		// Each packet of the flow is to have the mark, so the flow stays.
		return nfqueue.Accept().WithMark(p.Mark&^d.Verdict.Mask | d.Verdict.Mark)
	case rule.Queue:
		v := nfqueue.ToQueue(d.Verdict.Queue)
		if c.Fail == FailOpen {
			v = v.WithBypass()
		}
		return v
	}
	return nfqueue.Verdict{}
}

// unconfirmed reports whether the packet begins its flow, or tries to again. Its conntrack
// entry goes with it when it is dropped (nf_conntrack_confirm has not seen it): there is
// nothing that could be marked.
func (w *worker) unconfirmed(d *inspect.Decision) bool {
	p := w.engine.Packet()
	return d.First || p.Proto == packet.ProtoTCP && p.HasTransport && p.TCP.Flags&(packet.SYN|packet.ACK) == packet.SYN
}

// repeat sends the packet through the chain again, with a code for its first rule.
func (w *worker) repeat(p *nfqueue.Packet, code uint32) nfqueue.Verdict {
	m := w.d.config.Mark
	if code&codeOnce == 0 {
		w.left.Add(1)
	}
	return nfqueue.Repeat().WithMark(p.Mark&^uint32(m) | m.value(code))
}

// reject has the kernel answer.
func (w *worker) reject(p *nfqueue.Packet, d *inspect.Decision, last bool) nfqueue.Verdict {
	in := w.engine.Packet()
	if in.HasTransport && (in.Proto == packet.ProtoTCP && in.TCP.Flags.Has(packet.RST) || in.ICMP.Error) {
		// Neither is answered (RFC 9293, section 3.10.7.1; RFC 1122, section 3.2.2). It
		// passes: mostly it is the kernel's own to an earlier packet.
		return nfqueue.Accept()
	}
	code := uint32(codeReject)
	if d.Verdict.Answer > rule.AnswerTCPReset {
		code += uint32(d.Verdict.Answer - rule.AnswerTCPReset)
	}
	if !last || w.unconfirmed(d) {
		code |= codeOnce
	}
	return w.repeat(p, code)
}

// cameBack judges a packet that came back with our mark, which the first rule of the
// chain should have caught.
func (w *worker) cameBack(p *nfqueue.Packet) nfqueue.Verdict {
	w.returned.Add(1)
	if _, ok := w.d.returns.allow(nfqueue.Now()/60, 1); ok {
		w.d.log.Warn("packets come back with our mark: the kernel lacks the rules that look at it; see inquest verdict rules, or set daemon.shortcut to false",
			"mark", fmt.Sprintf("%#x", p.Mark), "hook", p.Hook.String())
	}
	m := w.d.config.Mark
	if p.Mark&uint32(m) == m.value(codeAccept) {
		return nfqueue.Accept().WithMark(p.Mark &^ uint32(m))
	}
	return nfqueue.Drop()
}

// log writes an entry for a packet, if its rule has not written too many.
func (w *worker) log(p *nfqueue.Packet, d *inspect.Decision) {
	rules := w.d.rules.Load()
	i := rules.index(d.Rule)
	suppressed, ok := rules.limits[i].allow(p.Received, w.d.config.Log.Rate)
	if !ok {
		return
	}
	flow := w.engine.Flow()
	w.d.entries.put(entry{
		level: rules.logs[i].Level, message: rules.logs[i].Message,
		rule: rules.names[i], verdict: d.Verdict.String(), hook: p.Hook.String(), proto: flow.Proto,
		src: netip.AddrPortFrom(flow.Src, flow.SrcPort), dst: netip.AddrPortFrom(flow.Dst, flow.DstPort),
		in: w.meta.In, out: w.meta.Out, facts: describe(w.engine.Facts()), suppressed: suppressed,
	})
}

// stuck reports for how long the worker has been at one packet.
func (w *worker) stuck(now int64) time.Duration {
	since := w.since.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(now - since)
}
