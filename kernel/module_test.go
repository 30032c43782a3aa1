package kernel

import (
	"errors"
	"testing"

	"inquest/internal/kerneltest"
	"inquest/vmcore"
)

func TestModules(t *testing.T) {
	for name, o := range kernels {
		t.Run(name, func(t *testing.T) {
			m := kerneltest.Linux(o)
			k := open(t, m.Machine)
			mods, err := k.Modules()
			if err != nil || len(mods) != 1 {
				t.Fatalf("%d modules, %v", len(mods), err)
			}
			mod := mods[0]
			size := uint64(0x1800)
			if o.OldModules {
				size = 0x2000
			}
			if mod.Name != "widget" || mod.State != "Live" || mod.Taints != "O" || mod.Size != size || len(mod.Ranges) != 2 {
				t.Errorf("%+v", mod)
			}
			want := []Symbol{
				{Name: "widget_init", Addr: 0xffffffffc0000020, Size: 0x30, Type: 't', Module: "widget"},
				{Name: "widget_open", Addr: 0xffffffffc0000100, Size: 0x40, Type: 't', Module: "widget"},
				{Name: "widget_state", Addr: 0xffffffffc0001010, Size: 8, Type: 'd', Module: "widget"},
			}
			if len(mod.Symbols()) != len(want) {
				t.Errorf("symbols: %v", mod.Symbols())
			}
			for _, w := range want {
				if s, err := k.Lookup(w.Name); s != w || err != nil {
					t.Errorf("%s: %v, %v", w.Name, s, err)
				}
			}
			for _, tt := range []struct {
				addr Addr
				want string
				text bool
			}{
				{0xffffffffc0000000, "", true},
				{0xffffffffc0000100, "widget_open [widget]", true},
				{0xffffffffc0000fff, "widget_open+0xeff [widget]", true},
				{0xffffffffc0001000, "", false}, // in the data: what comes before is code
				{0xffffffffc0001018, "widget_state+0x8 [widget]", false},
				{0xffffffffc0002000, "", false},
				{0xffffffffbfffffff, "", false},
			} {
				if got := k.Name(tt.addr); got != tt.want {
					t.Errorf("%v is %q, want %q", tt.addr, got, tt.want)
				}
				if got := k.Text(tt.addr); got != tt.text {
					t.Errorf("%v is text: %v", tt.addr, got)
				}
			}
			if o.ModuleTypes {
				if n, err := k.SizeOf("widget"); n != 4 || err != nil {
					t.Errorf("struct widget: %d, %v", n, err)
				}
			}
		})
	}
}

func TestModulesDamaged(t *testing.T) {
	m := kerneltest.Linux(kerneltest.Options{})
	m.Lose(m.Module)
	mods, err := open(t, m.Machine).Modules()
	if len(mods) != 0 || !errors.Is(err, vmcore.ErrAbsent) {
		t.Errorf("%v, %v", mods, err)
	}
}

func TestTaintLetters(t *testing.T) {
	for mask, want := range map[uint64]string{0: "", 1: "P", 1<<9 | 1<<12 | 1<<13: "WOE", 1 << 19: "J", 1 << 63: ""} {
		if got := TaintLetters(mask); got != want {
			t.Errorf("%#x is %q, want %q", mask, got, want)
		}
	}
}
