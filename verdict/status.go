package verdict

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// Status is what a running daemon says of itself: "verdict top" reads one a second from
// its Unix socket, and its metrics are made of it. Counts begin when the daemon starts,
// those of rules when the rules are loaded.
type Status struct {
	Time    time.Time `json:"time"`
	Started time.Time `json:"started"`
	PID     int       `json:"pid"`

	File        string    `json:"file"`          // the rule file
	Loaded      time.Time `json:"loaded"`        // when its rules were
	Reloads     uint64    `json:"reloads"`       // that were made
	ReloadFails uint64    `json:"reload_fails"`  // that were refused: the old rules stayed
	ReloadError string    `json:"reload_error"`  // of the last one, "" if it was made
	Fail        string    `json:"fail"`          // "open" or "closed"
	Installed   Way       `json:"installed"`     // "" if the kernel's rules are somebody else's
	Reinstalled uint64    `json:"reinstalled"`   // times that somebody else removed them
	CarveOut    bool      `json:"carve_out"`     // SYN/ACKs made here are not queued
	CarveOutWhy string    `json:"carve_out_why"` // why, or why not

	Packets Packets        `json:"packets"`
	Queues  []QueueStatus  `json:"queues"`
	Flows   FlowStatus     `json:"flows"`
	Rules   []RuleStatus   `json:"rules"`   // in the file's order; the last is the default
	Latency []LatencyCount `json:"latency"` // of packets in our hands, until the kernel had the verdict; rising

	LatencySum time.Duration `json:"latency_sum_ns"`
}

// Packets counts what was judged, by what came of it.
type Packets struct {
	Received  uint64 `json:"received"`
	Bytes     uint64 `json:"bytes"`
	Accepted  uint64 `json:"accepted"`  // marked ones included
	Dropped   uint64 `json:"dropped"`   // without an answer
	Rejected  uint64 `json:"rejected"`  // with an answer
	Queued    uint64 `json:"queued"`    // to another queue
	Pending   uint64 `json:"pending"`   // of all these, while a rule waited for a fact
	Malformed uint64 `json:"malformed"` // without an IP header
	Anomalous uint64 `json:"anomalous"` // with something else wrong with them
	Returned  uint64 `json:"returned"`  // came back with our mark: rules are missing in the kernel
	Panics    uint64 `json:"panics"`    // judged by daemon.fail, because a worker failed
}

// QueueStatus is one queue.
type QueueStatus struct {
	Number   uint16 `json:"number"`
	Received uint64 `json:"received"`
	Waiting  uint32 `json:"waiting"` // for a verdict, now
	Full     uint32 `json:"full"`    // packets dropped because the queue was full
	Lost     uint64 `json:"lost"`    // packets that did not fit in the socket's buffer
	Overruns uint64 `json:"overruns"`
	Flushed  uint64 `json:"flushed"`  // verdicts that came too late
	Refused  uint64 `json:"refused"`  // verdicts that the kernel did not take
	Vanished uint64 `json:"vanished"` // times that the queue was bound again
}

// FlowStatus is the flow table.
type FlowStatus struct {
	Now     int    `json:"now"`
	Max     int    `json:"max"`
	Created uint64 `json:"created"`
	Decided uint64 `json:"decided"` // for good
	Left    uint64 `json:"left"`    // of these, by a mark that takes them out of the queues
	Evicted uint64 `json:"evicted"` // forgotten before their time, for want of room
	Taken   uint64 `json:"taken"`   // whose payload was forgotten, for want of memory
	Memory  int64  `json:"memory"`  // bytes for flows and their payload
}

// RuleStatus is one rule.
type RuleStatus struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"`
	Packets uint64 `json:"packets"` // that it decided, or that wait for what it wants to know
	Flows   uint64 `json:"flows"`   // that it decided for good
}

// LatencyCount is a bucket: how many packets took at most so long, and longer than the
// bucket before says. Empty ones are left out.
type LatencyCount struct {
	Limit time.Duration `json:"ns"`
	Count uint64        `json:"n"`
}

// maxStatus bounds what a client reads.
const maxStatus = 64 << 20

// ReadStatus asks the daemon that listens on a Unix socket.
func ReadStatus(socket string) (*Status, error) {
	conn, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	var s Status
	if err := json.NewDecoder(io.LimitReader(conn, maxStatus)).Decode(&s); err != nil {
		return nil, fmt.Errorf("read the daemon's status from %s: %w", socket, err)
	}
	return &s, nil
}

// since returns the buckets' counts less those of an earlier status of the same daemon.
func since(now, before []LatencyCount) []LatencyCount {
	old := make(map[time.Duration]uint64, len(before))
	for _, b := range before {
		old[b.Limit] = b.Count
	}
	var list []LatencyCount
	for _, b := range now {
		if n := b.Count - min(old[b.Limit], b.Count); n > 0 {
			list = append(list, LatencyCount{b.Limit, n})
		}
	}
	slices.SortFunc(list, func(a, b LatencyCount) int { return int(a.Limit - b.Limit) })
	return list
}

// quantile is a time that the part q of the packets did not exceed; 0 if there are none.
func quantile(list []LatencyCount, q float64) time.Duration {
	var total, sum uint64
	for _, b := range list {
		total += b.Count
	}
	for _, b := range list {
		if sum += b.Count; float64(sum) >= q*float64(total) {
			return b.Limit
		}
	}
	return 0
}
