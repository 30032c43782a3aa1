package packet_test

import (
	"encoding/hex"
	"fmt"

	"inquest/inspect/packet"
)

// A SYN is decoded and refused.
func ExamplePacket_Decode() {
	syn, _ := hex.DecodeString("4500002800010000400666cd0a0000010a0000029c4001bb000003e800000000500201f6f8060000")
	var p packet.Packet
	if err := p.Decode(syn); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Src, p.SrcPort, p.Dst, p.DstPort, p.TCP.Flags.Names())
	if p.Verify(packet.ChecksumUnverified) {
		if rst, ok := p.AppendReset(nil); ok {
			p.Decode(rst)
			fmt.Println(p.Src, p.SrcPort, p.Dst, p.DstPort, p.TCP.Flags.Names(), p.TCP.Ack)
		}
	}
	// Output:
	// 10.0.0.1 40000 10.0.0.2 443 [SYN]
	// 10.0.0.2 443 10.0.0.1 40000 [RST ACK] 1001
}
