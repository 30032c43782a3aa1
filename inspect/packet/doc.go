// Package packet decodes one network packet from its network header on, without
// allocating: IPv4 with options, IPv6 with its extension headers, fragments, TCP
// with options, UDP, UDP-Lite, ICMP and ICMPv6 with the packet that an error
// quotes, SCTP, and what GRE, VXLAN and IP-in-IP tunnels carry.
//
// [Packet.Decode] reads into a Packet that is used again and again. It fails only
// when there is no IP header; all else that is wrong with a packet is a bit in
// [Packet.Anomalies], because a judge of packets wants to judge the malformed ones
// too. [Packet.Inner] looks into a tunnel and [Packet.Verify] at the checksums.
//
// What is sent back is built by appending to a buffer of the caller's:
// [Packet.AppendReset] and [Packet.AppendUnreachable] answer a rejected packet as
// Linux's own REJECT target does, [Packet.AppendAbort] ends the connection on the
// other side, and [Packet.AppendReplaced] is the packet with another payload, its
// lengths and checksums put right.
//
// Packets are hostile input: every length is checked against what is there, the
// walk over extension headers is bounded, and no input makes a function panic.
package packet
