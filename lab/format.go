package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Formats of QEMU's dump-guest-memory. Those of kdump come flattened, as makedumpfile
// -F writes them. Newer versions of QEMU have "kdump-raw-zlib" and the like, which are
// not; which there are, [VM.DumpFormats] says.
const (
	FormatELF         = "elf"
	FormatKdumpZlib   = "kdump-zlib"
	FormatKdumpLZO    = "kdump-lzo"
	FormatKdumpSnappy = "kdump-snappy"
	AllFormats        = "all" // stands for all that QEMU has
)

// formatOfWindows is a format for another kernel's dumps.
const formatOfWindows = "win-dmp"

// isFlattened reports whether QEMU writes a format flattened.
func isFlattened(format string) bool {
	return strings.HasPrefix(format, "kdump-") && !strings.HasPrefix(format, "kdump-raw-")
}

// DumpFormats asks QEMU for the formats that it can dump in.
func (vm *VM) DumpFormats(ctx context.Context) ([]string, error) {
	var answer struct {
		Formats []string `json:"formats"`
	}
	if err := vm.QMP.Run(ctx, "query-dump-guest-memory-capability", nil, &answer); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(answer.Formats, func(f string) bool { return f == formatOfWindows }), nil
}

// formats are those that are wanted, and which QEMU has.
func (vm *VM) formats(ctx context.Context, wanted []string) ([]string, error) {
	offered, err := vm.DumpFormats(ctx)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, format := range wanted {
		switch {
		case format == AllFormats:
			list = append(list, offered...)
		case slices.Contains(offered, format):
			list = append(list, format)
		default:
			return nil, fmt.Errorf("this QEMU does not dump in format %q, but in %s", format, strings.Join(offered, ", "))
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
