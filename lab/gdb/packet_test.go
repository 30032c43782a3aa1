package gdb

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadPacket(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
		err            error
	}{
		{"plain", "$OK#9a", "OK", nil},
		{"behind acknowledgements", "++$OK#9a", "OK", nil},
		{"empty", "$#00", "", nil},
		{"a run", "$0* #7a", "0000", nil},
		{"an escape", string(frame([]byte("a$b#c}d*e"))), "a$b#c}d*e", nil},
		{"bad checksum", "$OK#9b", "", errChecksum},
		{"no checksum", "$OK#xx", "", errChecksum},
		{"a run of nothing", string(frame([]byte{})[:1]) + "* #4a", "", ErrProtocol},
		{"an escape of nothing", "$a}#de", "", ErrProtocol},
		{"nothing", "", "", io.EOF},
		{"cut", "$OK#9", "", io.ErrUnexpectedEOF},
	} {
		got, err := readPacket(bufio.NewReader(strings.NewReader(tt.in)))
		if string(got) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestParseStop(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Stop
		ok   bool
	}{
		{"S05", Stop{SigTrap, 0}, true},
		{"T05thread:01;", Stop{SigTrap, 1}, true},
		{"T02thread:p01.0a;", Stop{SigInt, 10}, true},
		{"T05hwbreak:;thread:2;06:0*,;", Stop{SigTrap, 2}, true},
		{"T05thread:x;", Stop{}, false},
		{"W00", Stop{}, false},
		{"T5", Stop{}, false},
		{"", Stop{}, false},
	} {
		got, err := parseStop([]byte(tt.in))
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
	}
}

// FuzzConversation parses all that a peer may answer.
func FuzzConversation(f *testing.F) {
	for _, s := range []string{
		"$T05thread:p01.02;#..", "$m01,02#c9", "$0*~}\x03#00", "$E14#aa", "+-+$l#6c", string(frame([]byte("}*$#"))),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		payload, err := readPacket(bufio.NewReader(bytes.NewReader(text)))
		if err == nil && len(payload) > maxPacket {
			t.Errorf("a packet of %d bytes", len(payload))
		}
		for _, raw := range [][]byte{payload, text} {
			parseStop(raw)
			if list, more, err := parseThreads(raw); (err != nil || !more) && list != nil {
				t.Errorf("%d threads from %.40q", len(list), raw)
			}
			if r, err := parseRegisters(raw); err == nil {
				r.Get(RIP)
			}
		}
		// What this package sends it can read.
		if len(text) > maxPacket/2 {
			return
		}
		back, err := readPacket(bufio.NewReader(bytes.NewReader(frame(text))))
		if err != nil || !bytes.Equal(back, text) {
			t.Errorf("%q came back as %q, %v", text, back, err)
		}
	})
}
