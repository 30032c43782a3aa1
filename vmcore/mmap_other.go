//go:build !linux

package vmcore

import "os"

// mapFile maps nothing: elsewhere than on Linux dumps are read, not mapped.
func mapFile(*os.File, int64) (data []byte, ok bool) { return nil, false }

func unmapFile([]byte) error { return nil }
