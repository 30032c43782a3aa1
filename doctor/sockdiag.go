package doctor

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socketBuffers asks the kernel for the receive buffers, in bytes, of the sockets that talk to
// netfilter, by their ports (sock_diag(7), include/uapi/linux/netlink_diag.h). A kernel
// without netlink_diag tells none.
func socketBuffers() map[uint32]uint64 {
	const (
		sockDiagByFamily = 20
		showMeminfo      = 1 // NDIAG_SHOW_MEMINFO
	)
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil
	}
	defer conn.Close()
	request := make([]byte, 20) // struct netlink_diag_req
	request[0], request[1] = unix.AF_NETLINK, unix.NETLINK_NETFILTER
	binary.NativeEndian.PutUint32(request[8:], showMeminfo)
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return nil
	}
	buffers := make(map[uint32]uint64)
	for _, m := range answers {
		if port, size, ok := parseDiag(m.Data); ok {
			buffers[port] = size
		}
	}
	return buffers
}

// parseDiag reads a struct netlink_diag_msg and its attributes.
func parseDiag(data []byte) (port uint32, size uint64, ok bool) {
	const (
		header    = 28 // struct netlink_diag_msg
		portAt    = 4
		meminfo   = 0 // NETLINK_DIAG_MEMINFO
		rcvbuf    = 1 // SK_MEMINFO_RCVBUF
		wordBytes = 4
	)
	if len(data) < header {
		return 0, 0, false
	}
	port = binary.NativeEndian.Uint32(data[portAt:])
	attrs, err := netlink.NewAttributeDecoder(data[header:])
	if err != nil {
		return 0, 0, false
	}
	for attrs.Next() {
		if info := attrs.Bytes(); attrs.Type() == meminfo && len(info) >= (rcvbuf+1)*wordBytes {
			return port, uint64(binary.NativeEndian.Uint32(info[rcvbuf*wordBytes:])), true
		}
	}
	return 0, 0, false
}
