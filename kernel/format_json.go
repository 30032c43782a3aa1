package kernel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/cilium/ebpf/btf"
)

// MarshalJSON writes the bare value, without its name: an object with the
// members in their order, those of anonymous members among them; an array with
// all elements; a number; a string for text, an enum's name or a pointer ("0x…");
// null for what cannot be read.
func (v Value) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	v.json(&b)
	return b.Bytes(), nil
}

func (v Value) json(b *bytes.Buffer) {
	if v.Err != nil {
		b.WriteString("null")
		return
	}
	switch v.kind {
	case kindStruct:
		b.WriteByte('{')
		v.jsonMembers(b, true)
		b.WriteByte('}')
	case kindArray:
		b.WriteByte('[')
		first := true
		for _, e := range v.Parts {
			for range e.Count {
				if !first {
					b.WriteByte(',')
				}
				first = false
				e.json(b)
			}
		}
		b.WriteByte(']')
	case kindString:
		jsonString(b, v.Str)
	case kindBool:
		b.WriteString(strconv.FormatBool(v.Uint != 0))
	case kindEnum:
		if name := v.enumName(); name != "" {
			jsonString(b, name)
			return
		}
		fmt.Fprint(b, v.Uint)
	case kindPointer, kindCharPointer:
		fmt.Fprintf(b, "\"%#x\"", v.Uint)
	case kindFloat:
		v.jsonFloat(b)
	case kindSigned, kindChar:
		fmt.Fprint(b, int64(v.Uint))
	default:
		fmt.Fprint(b, v.Uint)
	}
}

// jsonMembers writes the members; it returns whether the next one is the first.
func (v Value) jsonMembers(b *bytes.Buffer, first bool) bool {
	for _, m := range v.Parts {
		if m.Name == "" {
			if m.kind == kindStruct && m.Err == nil {
				first = m.jsonMembers(b, first)
			}
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		jsonString(b, m.Name)
		b.WriteByte(':')
		m.json(b)
	}
	return first
}

func (v Value) jsonFloat(b *bytes.Buffer) {
	f := math.Float64frombits(v.Uint)
	if n, _ := btf.Sizeof(v.Type); n == 4 {
		f = float64(math.Float32frombits(uint32(v.Uint)))
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		b.WriteString("null")
		return
	}
	fmt.Fprint(b, f)
}

func jsonString(b *bytes.Buffer, s string) {
	text, _ := json.Marshal(s) // a string always marshals
	b.Write(text)
}
