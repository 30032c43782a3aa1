//go:build !race

package vmcore

const raceEnabled = false
