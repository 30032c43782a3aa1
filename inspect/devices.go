package inspect

import (
	"maps"
	"sync"
	"sync/atomic"
)

// devices numbers device names, so that flows need not hold strings. Number 0 is "".
type devices struct {
	mu    sync.Mutex
	known atomic.Pointer[deviceNames] // replaced, never changed
}

type deviceNames struct {
	names   []string
	numbers map[string]uint16
}

// maxDevices bounds the names; those after it are as good as unknown.
const maxDevices = 4096

func (d *devices) name(n uint16) string {
	if n == 0 {
		return ""
	}
	return d.known.Load().names[n-1]
}

func (d *devices) number(name string) uint16 {
	if name == "" {
		return 0
	}
	if k := d.known.Load(); k != nil {
		if n, ok := k.numbers[name]; ok {
			return n
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	next := &deviceNames{numbers: map[string]uint16{}}
	if k := d.known.Load(); k != nil {
		if n, ok := k.numbers[name]; ok || len(k.names) == maxDevices {
			return n
		}
		next.names, next.numbers = k.names[:len(k.names):len(k.names)], maps.Clone(k.numbers)
	}
	next.names = append(next.names, name)
	next.numbers[name] = uint16(len(next.names))
	d.known.Store(next)
	return uint16(len(next.names))
}
