package verdict

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// collector makes metrics of a status when they are asked for. Nothing is counted twice,
// and nothing is done for metrics on the way of a packet.
type collector struct{ status func() *Status }

// The metrics. docs/verdict.md lists them all.
var (
	descUp = desc("start_time_seconds", "When the daemon was started, in seconds since the epoch.")

	descPackets   = desc("packets_total", "Packets judged, by verdict: accept, drop, reject, queue.", "verdict")
	descBytes     = desc("bytes_total", "Bytes of the packets judged, from the IP headers on.")
	descPending   = desc("packets_pending_total", "Packets that passed or were held while a rule waited for a fact.")
	descAnomalous = desc("packets_anomalous_total", "Packets with something wrong in their headers.")
	descMalformed = desc("packets_malformed_total", "Packets that do not even have an IP header.")
	descReturned  = desc("packets_returned_total", "Packets that came back with our mark: rules are missing in the kernel.")
	descPanics    = desc("panics_total", "Packets judged by daemon.fail because a worker failed.")

	descReceived = desc("queue_received_total", "Packets that came from a queue.", "queue")
	descWaiting  = desc("queue_waiting", "Packets that wait for a verdict.", "queue")
	descFull     = desc("queue_full_total", "Packets dropped because the queue was full. With fail: open they pass, and the kernel does not count them.", "queue")
	descLost     = desc("queue_lost_total", "Packets that did not fit in the socket's buffer: dropped, or passed with fail: open.", "queue")
	descOverruns = desc("queue_overruns_total", "Times that the socket's buffer was full.", "queue")
	descFlushed  = desc("queue_flushed_total", "Verdicts that came after the kernel had thrown the packet away.", "queue")
	descRefused  = desc("queue_refused_total", "Verdicts that the kernel did not take.", "queue")
	descVanished = desc("queue_vanished_total", "Times that a queue was gone and was bound again.", "queue")
	descLatency  = desc("latency_seconds", "Time from receiving a packet until its verdict was sent.")

	descFlows   = desc("flows", "Flows that are remembered.")
	descMax     = desc("flows_max", "Flows that can be remembered.")
	descCreated = desc("flows_created_total", "Flows seen.")
	descDecided = desc("flows_decided_total", "Flows whose verdict is final.")
	descLeft    = desc("flows_left_total", "Flows that the kernel was told to take out of the queues.")
	descTaken   = desc("flows_forgotten_total", "Flows whose payload was forgotten for want of memory: their facts are absent.")
	descEvicted = desc("flows_evicted_total", "Flows forgotten before their time, for want of room.")
	descMemory  = desc("flow_memory_bytes", "Bytes for flows and their payload.")

	descRulePackets = desc("rule_packets_total", "Packets that a rule decided, since the rules were loaded.", "rule", "verdict")
	descRuleFlows   = desc("rule_flows_total", "Flows that a rule decided for good, since the rules were loaded.", "rule", "verdict")

	descReloads     = desc("reloads_total", "Reloads of the rule file, by outcome: made, refused.", "outcome")
	descReloadGood  = desc("reload_ok", "1 if the rule file was good when it was read last.")
	descLoaded      = desc("rules_loaded_time_seconds", "When the rules in force were loaded, in seconds since the epoch.")
	descInstalled   = desc("rules_installed", "1 if the daemon installed the kernel's rules itself.")
	descReinstalled = desc("rules_reinstalled_total", "Times that somebody else removed the kernel's rules and they were installed again.")
	descCarveOut    = desc("carve_out", "1 if SYN/ACKs made here are kept out of the queues.")
	descFailOpen    = desc("fail_open", "1 if packets pass when the daemon cannot judge them, 0 if they are dropped.")
	descriptionList = []*prometheus.Desc{
		descUp, descPackets, descBytes, descPending, descAnomalous, descMalformed, descReturned, descPanics,
		descReceived, descWaiting, descFull, descLost, descOverruns, descFlushed, descRefused, descVanished, descLatency,
		descFlows, descMax, descCreated, descDecided, descLeft, descEvicted, descTaken, descMemory, descRulePackets, descRuleFlows,
		descReloads, descReloadGood, descLoaded, descInstalled, descReinstalled, descCarveOut, descFailOpen,
	}
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("inquest_verdict_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptionList {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	truth := func(d *prometheus.Desc, b bool) {
		v := 0.0
		if b {
			v = 1
		}
		gauge(d, v)
	}
	gauge(descUp, float64(s.Started.UnixMilli())/1e3)

	count(descPackets, s.Packets.Accepted, "accept")
	count(descPackets, s.Packets.Dropped, "drop")
	count(descPackets, s.Packets.Rejected, "reject")
	count(descPackets, s.Packets.Queued, "queue")
	count(descBytes, s.Packets.Bytes)
	count(descPending, s.Packets.Pending)
	count(descAnomalous, s.Packets.Anomalous)
	count(descMalformed, s.Packets.Malformed)
	count(descReturned, s.Packets.Returned)
	count(descPanics, s.Packets.Panics)

	for _, q := range s.Queues {
		number := strconv.Itoa(int(q.Number))
		count(descReceived, q.Received, number)
		gauge(descWaiting, float64(q.Waiting), number)
		count(descFull, uint64(q.Full), number)
		count(descLost, q.Lost, number)
		count(descOverruns, q.Overruns, number)
		count(descFlushed, q.Flushed, number)
		count(descRefused, q.Refused, number)
		count(descVanished, q.Vanished, number)
	}
	c.latency(ch, s)

	gauge(descFlows, float64(s.Flows.Now))
	gauge(descMax, float64(s.Flows.Max))
	count(descCreated, s.Flows.Created)
	count(descDecided, s.Flows.Decided)
	count(descLeft, s.Flows.Left)
	count(descTaken, s.Flows.Taken)
	count(descEvicted, s.Flows.Evicted)
	gauge(descMemory, float64(s.Flows.Memory))
	for _, r := range s.Rules {
		count(descRulePackets, r.Packets, r.Name, r.Verdict)
		count(descRuleFlows, r.Flows, r.Name, r.Verdict)
	}

	count(descReloads, s.Reloads, "made")
	count(descReloads, s.ReloadFails, "refused")
	truth(descReloadGood, s.ReloadError == "")
	gauge(descLoaded, float64(s.Loaded.UnixMilli())/1e3)
	truth(descInstalled, s.Installed != "")
	count(descReinstalled, s.Reinstalled)
	truth(descCarveOut, s.CarveOut)
	truth(descFailOpen, s.Fail == FailOpen.String())
}

// latencyLimits are the buckets of the histogram, in nanoseconds: powers of four from
// 4 µs on, which nfqueue's finer ones do not cross.
var latencyLimits = []int64{1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30}

func (c collector) latency(ch chan<- prometheus.Metric, s *Status) {
	buckets := make(map[float64]uint64, len(latencyLimits))
	var total, sum uint64
	rest := s.Latency
	for _, limit := range latencyLimits {
		for len(rest) > 0 && int64(rest[0].Limit) <= limit {
			sum += rest[0].Count
			rest = rest[1:]
		}
		buckets[float64(limit)/1e9] = sum
	}
	for _, b := range s.Latency {
		total += b.Count
	}
	ch <- prometheus.MustNewConstHistogram(descLatency, total, s.LatencySum.Seconds(), buckets)
}
