package kernel

import (
	"fmt"
	"iter"
	"time"
)

// Record is one message of the printk log.
type Record struct {
	Time     time.Duration // since boot
	Level    int           // 0 emergency … 7 debug
	Facility int
	Caller   uint32 // thread id, or CPU number with bit 31 set; 0 when the kernel keeps none
	Text     string // may hold several lines
}

// Limits on the log. The largest that log_buf_len= is used with is some 16 MiB.
const (
	maxLogSize = 256 << 20
	maxRecords = 4 << 20
)

// Log iterates over the printk log, oldest first: the ring buffer of 5.10 and
// later (kernel/printk/printk_ringbuffer.c), or the log_buf of older kernels. Text
// that the dump lacks is left out of its record. An error is the last value. Where
// VMCOREINFO describes the log, neither symbols nor types are needed.
func (k *Kernel) Log() iter.Seq2[Record, error] {
	if k.info != nil {
		// The one that VMCOREINFO names: looking for the other would load all symbols.
		if _, ok := k.info.Symbol("prb"); ok {
			return k.ringLog()
		}
		if _, ok := k.info.Symbol("log_buf"); ok {
			return k.bufLog()
		}
	}
	if _, err := k.Symbol("prb"); err == nil {
		return k.ringLog()
	}
	return k.bufLog()
}

// layoutOf gives offsets in a struct: VMCOREINFO has those of the log, so that it
// can be read without BTF; else BTF.
type layoutOf struct {
	k    *Kernel
	typ  string
	errs error
}

func (l *layoutOf) offset(member string) Addr {
	if l.k.info != nil {
		if v, ok := l.k.info.Offset(l.typ + "." + member); ok {
			return Addr(v)
		}
	}
	v, err := l.k.OffsetOf(l.typ, member)
	if err != nil && l.errs == nil {
		l.errs = err
	}
	return Addr(v)
}

func (l *layoutOf) size() Addr {
	if l.k.info != nil {
		if v, ok := l.k.info.SizeOf(l.typ); ok && v > 0 {
			return Addr(v)
		}
	}
	v, err := l.k.SizeOf(l.typ)
	if err != nil && l.errs == nil {
		l.errs = err
	}
	return Addr(v)
}

// ring is the kernel's struct printk_ringbuffer, opened.
type ring struct {
	k                        *Kernel
	descs, infos, data       Addr
	count, dataSize          uint64
	head, tail               uint64 // descriptor ids
	descSize, infoSize       Addr
	stateAt, begin, next     Addr // in struct prb_desc
	ts, textLen, fac, caller Addr // in struct printk_info; the flags and level follow the facility
}

func (k *Kernel) openRing() (*ring, error) {
	at, err := k.Symbol("prb")
	if err != nil {
		return nil, err
	}
	rb, err := k.Pointer(at)
	if err != nil {
		return nil, fmt.Errorf("read prb: %w", err)
	}
	prb := &layoutOf{k: k, typ: "printk_ringbuffer"}
	dr := &layoutOf{k: k, typ: "prb_desc_ring"}
	tr := &layoutOf{k: k, typ: "prb_data_ring"}
	desc := &layoutOf{k: k, typ: "prb_desc"}
	blk := &layoutOf{k: k, typ: "prb_data_blk_lpos"}
	info := &layoutOf{k: k, typ: "printk_info"}
	counter := &layoutOf{k: k, typ: "atomic_long_t"}
	descRing, textRing := rb+prb.offset("desc_ring"), rb+prb.offset("text_data_ring")
	blkAt := desc.offset("text_blk_lpos")
	r := &ring{
		k:        k,
		descSize: desc.size(), infoSize: info.size(),
		stateAt: desc.offset("state_var") + counter.offset("counter"),
		begin:   blkAt + blk.offset("begin"), next: blkAt + blk.offset("next"),
		ts: info.offset("ts_nsec"), textLen: info.offset("text_len"), caller: info.offset("caller_id"),
	}
	r.fac = r.textLen + 2 // u16 text_len; u8 facility; u8 flags:5, level:3
	var bits, size uint32
	for _, f := range []struct {
		at Addr
		to any
	}{
		{descRing + dr.offset("count_bits"), &bits},
		{descRing + dr.offset("descs"), &r.descs},
		{descRing + dr.offset("infos"), &r.infos},
		{descRing + dr.offset("head_id") + counter.offset("counter"), &r.head},
		{descRing + dr.offset("tail_id") + counter.offset("counter"), &r.tail},
		{textRing + tr.offset("size_bits"), &size},
		{textRing + tr.offset("data"), &r.data},
	} {
		switch to := f.to.(type) {
		case *uint32:
			*to, err = k.U32(f.at)
		case *uint64:
			*to, err = k.U64(f.at)
		case *Addr:
			*to, err = k.Pointer(f.at)
		}
		if err != nil {
			return nil, fmt.Errorf("read printk_ringbuffer at %v: %w", rb, err)
		}
	}
	for _, l := range []*layoutOf{prb, dr, tr, desc, blk, info, counter} {
		if l.errs != nil {
			return nil, fmt.Errorf("layout of %s: %w", l.typ, l.errs)
		}
	}
	if bits > 28 || size > 28 {
		return nil, fmt.Errorf("printk_ringbuffer of 2^%d descriptors and 2^%d bytes: %w", bits, size, ErrCorrupt)
	}
	r.count, r.dataSize = 1<<bits, 1<<size
	return r, nil
}

// Descriptor states and ids share a word: two bits above, the id below.
const (
	idMask         = 1<<62 - 1
	stateCommitted = 1
	stateFinalized = 2
)

func (k *Kernel) ringLog() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		r, err := k.openRing()
		if err != nil {
			yield(Record{}, err)
			return
		}
		// At most one turn of the ring, the newest, whatever tail_id claims.
		id := r.tail & idMask
		most := min(r.count, maxRecords)
		if n := (r.head - r.tail) & idMask; n >= most {
			id = (r.head - most + 1) & idMask
		}
		texts := uint64(0)
		for range most {
			rec, ok, err := r.record(id)
			// Each has its own part of the ring; forged ones could share it.
			if texts += uint64(len(rec.Text)); texts > r.dataSize && err == nil {
				err = fmt.Errorf("printk texts are longer than their ring: %w", ErrCorrupt)
			}
			if err != nil || ok {
				if !yield(rec, err) || err != nil {
					return
				}
			}
			if id == r.head&idMask {
				return
			}
			id = (id + 1) & idMask
		}
	}
}

// record reads the record with an id. ok is false for one that holds none: still
// being written, or already reused.
func (r *ring) record(id uint64) (rec Record, ok bool, err error) {
	slot := Addr(id % r.count)
	desc, info := r.descs+slot*r.descSize, r.infos+slot*r.infoSize
	state, err := r.k.U64(desc + r.stateAt)
	if err != nil {
		return rec, false, fmt.Errorf("read prb_desc at %v: %w", desc, err)
	}
	if s := state >> 62; state&idMask != id || s != stateCommitted && s != stateFinalized {
		return rec, false, nil
	}
	begin, err1 := r.k.U64(desc + r.begin)
	next, err2 := r.k.U64(desc + r.next)
	ts, err3 := r.k.U64(info + r.ts)
	n, err4 := r.k.U16(info + r.textLen)
	fac, err5 := r.k.U16(info + r.fac)
	caller, err6 := r.k.U32(info + r.caller)
	for _, e := range []error{err1, err2, err3, err4, err5, err6} {
		if e != nil {
			return rec, false, fmt.Errorf("read printk_info at %v: %w", info, e)
		}
	}
	rec = Record{Time: time.Duration(ts), Level: int(fac >> 13), Facility: int(fac & 0xff), Caller: caller}
	text, err := r.text(begin, next, int(n))
	if err != nil {
		return rec, false, err
	}
	rec.Text = text
	return rec, true, nil
}

// text reads a data block: an id word and then the text. A block that would cross
// the end of the ring begins at its start instead. One that ends exactly there did
// so too until 6.18 (commit 67e1b0052f6b), and then its next is not the ring's start.
func (r *ring) text(begin, next uint64, n int) (string, error) {
	if begin&1 == 1 || begin == next { // NO_LPOS, FAILED_LPOS: no text
		return "", nil
	}
	off := begin % r.dataSize
	size := next - begin
	if begin/r.dataSize != next/r.dataSize && next%r.dataSize != 0 {
		off, size = 0, next%r.dataSize
	}
	if size < 8 || size > r.dataSize-off {
		return "", nil
	}
	buf := make([]byte, min(n, int(size)-8))
	at := r.data + Addr(off) + 8
	if err := r.k.readSome(&buf, at, 0); err != nil {
		return "", fmt.Errorf("read printk text at %v: %w", at, err)
	}
	return string(buf), nil
}

// bufLog reads log_buf (kernel/printk/printk.c, 3.5 to 5.9): records of struct
// printk_log, back to back, from log_first_idx to log_next_idx.
func (k *Kernel) bufLog() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var at [4]Addr
		for i, name := range []string{"log_buf", "log_buf_len", "log_first_idx", "log_next_idx"} {
			var err error
			if at[i], err = k.Symbol(name); err != nil {
				yield(Record{}, err)
				return
			}
		}
		buf, err1 := k.Pointer(at[0])
		size, err2 := k.U32(at[1])
		first, err3 := k.U32(at[2])
		next, err4 := k.U32(at[3])
		for _, e := range []error{err1, err2, err3, err4} {
			if e != nil {
				yield(Record{}, fmt.Errorf("read log_buf: %w", e))
				return
			}
		}
		l := &layoutOf{k: k, typ: "printk_log"}
		head, ts, lenAt, textLen := l.size(), l.offset("ts_nsec"), l.offset("len"), l.offset("text_len")
		fac := l.offset("dict_len") + 2 // u8 facility; u8 flags:5, level:3; with PRINTK_CALLER (5.1) u32 caller_id
		if l.errs != nil {
			yield(Record{}, fmt.Errorf("layout of printk_log: %w", l.errs))
			return
		}
		if size > maxLogSize || head < 16 || head > 64 {
			yield(Record{}, fmt.Errorf("log_buf of %d bytes, printk_log of %d: %w", size, head, ErrCorrupt))
			return
		}
		read := uint32(0)
		for idx := first; idx != next; {
			if idx >= size || read > size {
				yield(Record{}, fmt.Errorf("log_buf at %d of %d: %w", idx, size, ErrCorrupt))
				return
			}
			rec := buf + Addr(idx)
			n, err := k.U16(rec + lenAt)
			if err != nil {
				yield(Record{}, fmt.Errorf("read printk_log at %v: %w", rec, err))
				return
			}
			if n == 0 { // wraps
				if idx == 0 {
					return
				}
				read += size - idx
				idx = 0
				continue
			}
			if Addr(n) < head {
				yield(Record{}, fmt.Errorf("printk_log at %v of %d bytes: %w", rec, n, ErrCorrupt))
				return
			}
			nsec, _ := k.U64(rec + ts)
			chars, _ := k.U16(rec + textLen)
			flags, _ := k.U16(rec + fac)
			caller := uint32(0)
			if head >= fac+2+4 {
				caller, _ = k.U32(rec + fac + 2)
			}
			text := make([]byte, min(int(chars), int(n)-int(head)))
			if err := k.readSome(&text, rec+head, 0); err != nil {
				yield(Record{}, fmt.Errorf("read printk_log at %v: %w", rec, err))
				return
			}
			if !yield(Record{Time: time.Duration(nsec), Level: int(flags >> 13), Facility: int(flags & 0xff), Caller: caller, Text: string(text)}, nil) {
				return
			}
			read += uint32(n)
			idx += uint32(n)
		}
	}
}
