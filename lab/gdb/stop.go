package gdb

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Thread is a CPU as the stub numbers them; QEMU begins with 1.
type Thread uint64

// The signals that a stop of a machine comes with.
const (
	SigInt  = 2 // Interrupt, or QMP's stop
	SigTrap = 5 // a breakpoint or a step
)

// Stop says why a machine stopped.
type Stop struct {
	Signal int    // SigInt, SigTrap; others have other causes
	Thread Thread // the CPU that did; 0 when the stub does not say
}

// parseStop reads a stop reply: "S05", or "T05thread:01;key:value;…".
func parseStop(text []byte) (Stop, error) {
	bad := fmt.Errorf("%w: stop reply %.80q", ErrProtocol, text)
	if len(text) < 3 || text[0] != 'S' && text[0] != 'T' {
		return Stop{}, bad
	}
	signal, err := strconv.ParseUint(string(text[1:3]), 16, 8)
	if err != nil {
		return Stop{}, bad
	}
	stop := Stop{Signal: int(signal)}
	for field := range bytes.SplitSeq(text[3:], []byte(";")) {
		if key, value, _ := bytes.Cut(field, []byte(":")); string(key) == "thread" {
			if stop.Thread, err = parseThread(value); err != nil {
				return Stop{}, bad
			}
		}
	}
	return stop, nil
}

// parseThread reads a thread's number, which is hexadecimal; "p1.2" is thread 2 of process 1.
func parseThread(text []byte) (Thread, error) {
	if process, thread, ok := bytes.Cut(text, []byte(".")); ok && bytes.HasPrefix(process, []byte("p")) {
		text = thread
	}
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: thread %.20q", ErrProtocol, text)
	}
	return Thread(n), nil
}

// parseThreads reads a part of the list of threads: "m1,2,3", or "l" at its end.
func parseThreads(text []byte) (threads []Thread, more bool, err error) {
	list, more := bytes.CutPrefix(text, []byte("m"))
	if !more {
		if string(text) != "l" {
			return nil, false, fmt.Errorf("%w: list of threads %.80q", ErrProtocol, text)
		}
		return nil, false, nil
	}
	for number := range bytes.SplitSeq(list, []byte(",")) {
		thread, err := parseThread(number)
		if err != nil {
			return nil, false, err
		}
		threads = append(threads, thread)
	}
	return threads, true, nil
}

func parseHex(text []byte) ([]byte, error) {
	data := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(data, text); err != nil {
		return nil, fmt.Errorf("%w: hexadecimal data %.40q: %w", ErrProtocol, text, err)
	}
	return data, nil
}
