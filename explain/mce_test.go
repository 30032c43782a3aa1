package explain

import "testing"

func TestMachineChecks(t *testing.T) {
	all := machineChecks([]string{
		"mce: [Hardware Error]: CPU 1: Machine Check Exception: 5 Bank 7: be0000000001009f",
		"mce: [Hardware Error]: RIP !INEXACT! 10:<ffffffff812345> {intel_idle+0x6b/0xb0}",
		"mce: [Hardware Error]: TSC 14d2b5b7a9d ADDR 1ffe5d040 MISC 908400008000e0",
		"mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: be00000000800400",
		"mce: [Hardware Error]: PROCESSOR 0:206d7 TIME 1466700437 SOCKET 0 APIC 0 microcode 710",
	})
	want := []string{
		"CPU 1, bank 7, status 0xbe0000000001009f: memory controller: read, not corrected, the processor's state may be corrupt, at physical address 0x1ffe5d040",
		"CPU 0, bank 5, status 0xbe00000000800400: internal timer: an instruction did not retire in time, not corrected, the processor's state may be corrupt",
	}
	if len(all) != len(want) {
		t.Fatalf("%d reports, want %d", len(all), len(want))
	}
	for i, m := range all {
		if got := m.describe(); got != want[i] {
			t.Errorf("got  %s\nwant %s", got, want[i])
		}
	}
}

// The codes are examples of the tables "Simple Error Codes" and "Compound Error Code Encoding".
func TestMachineCheckError(t *testing.T) {
	for code, want := range map[uint64]string{
		0x0000: "no error code", 0x0001: "unclassified error", 0x0005: "internal parity error", 0x0400: "internal timer: an instruction did not retire in time",
		0x0405: "internal error", 0x0014: "TLB error, data, level 0", 0x0090: "memory controller: read on channel 0", 0x00a3: "memory controller: write on channel 3", 0x00cf: "memory controller: scrubbing",
		0x0135: "cache error, data read of data, level 1", 0x1135: "cache error, data read of data, level 1", 0x0e0b: "bus or interconnect: error", 0x0f0f: "bus or interconnect: error, timed out", 0x8000: "error code 0x8000",
	} {
		if got := (machineCheck{status: mciValid | code}).error(); got != want {
			t.Errorf("%#x: %q, want %q", code, got, want)
		}
	}
}
