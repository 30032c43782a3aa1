package explain

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// machineCheck is what a bank of the CPU reported (Intel SDM volume 3B, chapter
// "Machine-Check Architecture"; AMD has the same fields).
type machineCheck struct {
	cpu, bank int
	status    uint64
	addr      uint64 // valid if status says so
}

// Bits of IA32_MCi_STATUS.
const (
	mciValid = 1 << 63
	mciOver  = 1 << 62 // an error before this one was overwritten
	mciUC    = 1 << 61 // not corrected
	mciAddrV = 1 << 58
	mciPCC   = 1 << 57 // the processor's state may be corrupt
)

// bankLine is mce_print's or print_mce's (arch/x86/kernel/cpu/mce/core.c).
var (
	bankLine    = regexp.MustCompile(`\[Hardware Error\]: CPU (\d+): Machine Check(?: Exception)?: [0-9a-f]+ Bank (\d+): ([0-9a-f]{16})`)
	bankAddress = regexp.MustCompile(`\[Hardware Error\]:.* ADDR ([0-9a-f]+)`)
)

// machineChecks reads the reports of a log.
func machineChecks(lines []string) []machineCheck {
	var all []machineCheck
	for _, l := range lines {
		if m := bankLine.FindStringSubmatch(l); m != nil {
			cpu, _ := strconv.Atoi(m[1])
			bank, _ := strconv.Atoi(m[2])
			status, _ := strconv.ParseUint(m[3], 16, 64)
			all = append(all, machineCheck{cpu: cpu, bank: bank, status: status})
		} else if m := bankAddress.FindStringSubmatch(l); m != nil && len(all) > 0 {
			all[len(all)-1].addr, _ = strconv.ParseUint(m[1], 16, 64)
		}
	}
	return all
}

// error decodes the error code in the lowest 16 bits.
func (m machineCheck) error() string {
	code := m.status & 0xffff &^ (1 << 12) // bit 12 says that corrected ones were filtered
	level := [...]string{"level 0", "level 1", "level 2", "level generic"}[code&3]
	kind := [...]string{"instruction", "data", "generic", "reserved"}[code>>2&3]
	request := func() string {
		names := []string{"error", "read", "write", "data read", "data write", "instruction fetch", "prefetch", "eviction", "snoop"}
		if r := int(code >> 4 & 15); r < len(names) {
			return names[r]
		}
		return "access"
	}
	switch {
	case code == 0:
		return "no error code"
	case code == 1:
		return "unclassified error"
	case code == 2:
		return "parity error in the microcode ROM"
	case code == 3:
		return "error signalled by another processor"
	case code == 4:
		return "functional redundancy check failed"
	case code == 5:
		return "internal parity error"
	case code == 0x400:
		return "internal timer: an instruction did not retire in time"
	case code&0xfc00 == 0x400:
		return "internal error"
	case code&0xfff0 == 0x10:
		return fmt.Sprintf("TLB error, %s, %s", kind, level)
	case code&0xff80 == 0x80:
		ops := [...]string{"error", "read", "write", "address or command", "scrubbing", "access", "access", "access"}
		text := "memory controller: " + ops[code>>4&7]
		if channel := code & 15; channel != 15 {
			text += fmt.Sprintf(" on channel %d", channel)
		}
		return text
	case code&0xff00 == 0x100:
		return fmt.Sprintf("cache error, %s of %s, %s", request(), kind, level)
	case code&0xf800 == 0x800:
		text := "bus or interconnect: " + request()
		if code&(1<<8) != 0 {
			text += ", timed out"
		}
		return text
	}
	return fmt.Sprintf("error code %#x", code)
}

// describe is one line for a reader.
func (m machineCheck) describe() string {
	parts := []string{fmt.Sprintf("CPU %d, bank %d, status %#016x: %s", m.cpu, m.bank, m.status, m.error())}
	if m.status&mciUC != 0 {
		parts = append(parts, "not corrected")
	} else {
		parts = append(parts, "corrected")
	}
	if m.status&mciPCC != 0 {
		parts = append(parts, "the processor's state may be corrupt")
	}
	if m.status&mciOver != 0 {
		parts = append(parts, "an earlier error was overwritten by it")
	}
	if m.status&mciAddrV != 0 && m.addr != 0 {
		parts = append(parts, fmt.Sprintf("at physical address %#x", m.addr))
	}
	return strings.Join(parts, ", ")
}

// explainMachineCheck adds what the banks say to a finding. The one that was not
// corrected gives the title.
func (c *Case) explainMachineCheck(f *Finding) {
	var lines []string
	for _, r := range c.Log[max(0, len(c.Log)-500):] {
		lines = append(lines, strings.Split(r.Text, "\n")...)
	}
	titled := false
	for _, m := range machineChecks(lines) {
		if m.status&mciValid == 0 {
			continue
		}
		f.Evidence = append(f.Evidence, Evidence{Text: m.describe(), Check: "log"})
		if m.status&mciUC != 0 && !titled {
			titled = true
			f.Title = "machine check: " + m.error()
			if m.addr != 0 && m.status&0xff80 == 0x80 {
				f.Advice = append(f.Advice, "The memory controller's errors come from a memory module, its slot or its channel: the platform's event log (IPMI SEL) names the slot.")
			}
		}
	}
}
