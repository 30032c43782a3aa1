//go:build race

package vmcore

// raceEnabled: the race detector makes sync.Pool forget things at random, so
// what comes from a pool is not free of allocations.
const raceEnabled = true
