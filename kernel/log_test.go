package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"inquest/internal/kerneltest"
)

func messages(n int) (msgs []kerneltest.Message) {
	for i := range n {
		text := fmt.Sprintf("message %d %s", i, strings.Repeat("x", i*7%40))
		if i%10 == 9 {
			text = ""
		}
		msgs = append(msgs, kerneltest.Message{NSec: uint64(i) * 1e6, Level: uint8(i % 8), Caller: uint32(i), Text: text})
	}
	return msgs
}

// checkLog compares with the end of what was written, of which at least so many
// must be there.
func checkLog(t *testing.T, k *Kernel, msgs []kerneltest.Message, least int, callers bool) {
	t.Helper()
	got, err := collect(k.Log())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < least || len(got) > len(msgs) {
		t.Fatalf("%d messages of %d", len(got), len(msgs))
	}
	// Text that was overwritten goes before its record does.
	msgs = msgs[len(msgs)-len(got):]
	for i, w := range msgs {
		want := Record{Time: time.Duration(w.NSec), Level: int(w.Level), Text: w.Text}
		if callers {
			want.Caller = w.Caller
		}
		if got[i] != want && i >= len(got)-least {
			t.Errorf("message %d: %+v, want %+v", i, got[i], want)
		}
	}
}

func TestRingLog(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 100, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			m := kerneltest.New()
			msgs := messages(n)
			m.PrintkRing(4, 11, msgs...)
			checkLog(t, open(t, m), msgs, min(n, 16), true)
		})
	}
}

// A text that ends where the ring does: it stays there since 6.18.
func TestRingLogExactEnd(t *testing.T) {
	m := kerneltest.New()
	msgs := []kerneltest.Message{
		{Text: strings.Repeat("a", 256-8)},
		{Text: strings.Repeat("b", 256-8)},
		{Text: strings.Repeat("c", 100)},
	}
	m.PrintkRing(4, 9, msgs...)
	checkLog(t, open(t, m), msgs, 2, true)
}

func TestRingLogDamaged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(m *kerneltest.Machine, rb uint64)
		want   error
		most   int
	}{
		{"2^63 descriptors", func(m *kerneltest.Machine, rb uint64) { m.Write32(rb, 63) }, ErrCorrupt, 0},
		{"2^63 bytes", func(m *kerneltest.Machine, rb uint64) { m.Write32(rb+48, 63) }, ErrCorrupt, 0},
		{"tail of nowhere", func(m *kerneltest.Machine, rb uint64) { m.Write64(rb+32, 12345) }, nil, 16},
		{"head of nowhere", func(m *kerneltest.Machine, rb uint64) { m.Write64(rb+24, 12345) }, nil, 16},
		{"descriptors missing", func(m *kerneltest.Machine, rb uint64) { m.Write64(rb+8, 0xdead000000000000) }, nil, 0},
		{"texts missing", func(m *kerneltest.Machine, rb uint64) {
			gone := m.Alloc(1<<11, 4096)
			m.Write64(rb+56, gone)
			m.Lose(gone)
		}, nil, 16},
		{"texts of one block", func(m *kerneltest.Machine, rb uint64) {
			descs, infos := readWord(m, rb+8), readWord(m, rb+16)
			for i := range uint64(16) {
				m.Write64(descs+24*i+8, 0)
				m.Write64(descs+24*i+16, 1<<11-8)
				m.Write(infos+88*i+16, []byte{0xff, 0xff})
			}
		}, ErrCorrupt, 2},
	} {
		m := kerneltest.New()
		tt.damage(m, m.PrintkRing(4, 11, messages(16)...))
		got, err := collect(open(t, m).Log())
		if tt.want != nil && !errors.Is(err, tt.want) || len(got) > tt.most {
			t.Errorf("%s: %d messages, %v; want at most %d, %v", tt.name, len(got), err, tt.most, tt.want)
		}
	}
}

// Where text is missing, its record comes all the same.
func TestRingLogTextMissing(t *testing.T) {
	m := kerneltest.New()
	rb := m.PrintkRing(4, 11, messages(3)...)
	gone := m.Alloc(1<<11, 4096)
	m.Write64(rb+56, gone)
	m.Lose(gone)
	got, err := collect(open(t, m).Log())
	if err != nil || len(got) != 3 || got[1] != (Record{Time: time.Millisecond, Level: 1, Caller: 1}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBufLog(t *testing.T) {
	for _, callers := range []bool{false, true} {
		for _, n := range []int{0, 1, 20, 200} {
			t.Run(fmt.Sprint(n, callers), func(t *testing.T) {
				m := kerneltest.New()
				msgs := messages(n)
				m.LogBuf(1024, callers, msgs...)
				checkLog(t, open(t, m), msgs, min(n, 12), callers)
			})
		}
	}
}

func TestBufLogDamaged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(m *kerneltest.Machine, buf uint64)
	}{
		{"a record of 3 bytes", func(m *kerneltest.Machine, buf uint64) { m.Write(buf+8, []byte{3, 0}) }},
		{"a record beyond the end", func(m *kerneltest.Machine, buf uint64) { m.Write(buf+8, []byte{0xff, 0xff}) }},
	} {
		m := kerneltest.New()
		tt.damage(m, m.LogBuf(1024, false, messages(5)...))
		if got, err := collect(open(t, m).Log()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %d messages, %v", tt.name, len(got), err)
		}
	}
}

// VMCOREINFO is enough: no symbols, no types.
func TestLogByInfo(t *testing.T) {
	for name, write := range map[string]func(m *kerneltest.Machine){
		"ring": func(m *kerneltest.Machine) { m.PrintkRing(4, 11, messages(5)...) },
		"buf":  func(m *kerneltest.Machine) { m.LogBuf(1024, true, messages(5)...) },
	} {
		m := kerneltest.New()
		m.NoSymbols = true
		write(m)
		got, err := collect(open(t, m).Log())
		if len(got) != 5 || err != nil {
			t.Errorf("%s: %d messages, %v", name, len(got), err)
		}
	}
}

// Without VMCOREINFO the layout is in BTF.
func TestRingLogByTypes(t *testing.T) {
	atomic := kerneltest.Struct("atomic_long_t", field{Name: "counter", Type: kerneltest.Long})
	lpos := kerneltest.Struct("prb_data_blk_lpos", field{Name: "begin", Type: kerneltest.Ulong}, field{Name: "next", Type: kerneltest.Ulong})
	desc := kerneltest.Struct("prb_desc", field{Name: "state_var", Type: atomic}, field{Name: "text_blk_lpos", Type: lpos})
	info := kerneltest.Struct("printk_info", field{Name: "seq", Type: kerneltest.Ulong}, field{Name: "ts_nsec", Type: kerneltest.Ulong},
		field{Name: "text_len", Type: kerneltest.U16}, field{Name: "facility", Type: kerneltest.U8}, field{Name: "flags", Type: kerneltest.U8, Bits: 5},
		field{Name: "level", Type: kerneltest.U8, Bits: 3}, field{Name: "caller_id", Type: kerneltest.U32},
		field{Name: "dev_info", Type: kerneltest.Array(kerneltest.Char, 64)})
	descRing := kerneltest.Struct("prb_desc_ring", field{Name: "count_bits", Type: kerneltest.U32}, field{Name: "descs", Type: kerneltest.Ptr(desc)},
		field{Name: "infos", Type: kerneltest.Ptr(info)}, field{Name: "head_id", Type: atomic}, field{Name: "tail_id", Type: atomic},
		field{Name: "last_finalized_seq", Type: atomic})
	dataRing := kerneltest.Struct("prb_data_ring", field{Name: "size_bits", Type: kerneltest.U32}, field{Name: "data", Type: kerneltest.Ptr(kerneltest.Char)})
	m := kerneltest.New()
	m.Types(kerneltest.Struct("printk_ringbuffer", field{Name: "desc_ring", Type: descRing}, field{Name: "text_data_ring", Type: dataRing}))
	msgs := messages(40)
	m.PrintkRing(4, 11, msgs...)
	m.NoInfo = true
	m.CPU(0, 0, 0)
	checkLog(t, open(t, m), msgs, 16, true)
}

func TestNoLog(t *testing.T) {
	if _, err := collect(open(t, kerneltest.New()).Log()); !errors.Is(err, ErrNoSymbol) {
		t.Errorf("%v", err)
	}
	// Breaking off early.
	m := kerneltest.New()
	m.PrintkRing(4, 11, messages(5)...)
	var texts []string
	for r := range open(t, m).Log() {
		if texts = append(texts, r.Text); len(texts) == 2 {
			break
		}
	}
	if !slices.Equal(texts, []string{"message 0 ", "message 1 xxxxxxx"}) {
		t.Errorf("%q", texts)
	}
}
