package explain

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"inquest/kernel"
)

// discriminator is a member by which the kernel itself tells the types apart that
// share a first member.
type discriminator struct {
	base   string // the struct that has it, at the start of all of them
	member string
	values map[uint64]string // what a value says
}

// discriminators of the kernel's families of types.
var discriminators = []discriminator{
	{"sock_common", "skc_state", map[uint64]string{ // include/net/tcp_states.h
		6:  "TCP_TIME_WAIT, which only time-wait sockets have",
		12: "TCP_NEW_SYN_RECV, which only request sockets have",
	}},
}

// discriminate says what an object's own discriminator says of it, "" when its type
// has none.
func (c *Case) discriminate(typ *btf.Struct, at kernel.Addr) string {
	for _, d := range discriminators {
		for _, first := range kernel.FirstMembers(typ) {
			if first != d.base {
				continue
			}
			b, err := c.Kernel.Object("struct "+d.base, at)
			if err != nil {
				break
			}
			v, err := b.Uint(d.member)
			if err != nil {
				break
			}
			if what, ok := d.values[v]; ok {
				return fmt.Sprintf("its %s is %d, %s", d.member, v, what)
			}
		}
	}
	return ""
}
