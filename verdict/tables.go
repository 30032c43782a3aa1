package verdict

import (
	"context"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// groupNFTables is the multicast group of changes of the ruleset, NFNLGRP_NFTABLES.
const groupNFTables = 7

// watchTables sends after nftables have changed, until the context ends. Changes that
// come close together may be one.
func watchTables(ctx context.Context) (<-chan struct{}, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (groupNFTables - 1)})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	changes := make(chan struct{}, 1)
	go func() {
		defer close(changes)
		for {
			// An overrun means that something has changed, too.
			_, err := conn.Receive()
			if err != nil && ctx.Err() != nil {
				return
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return changes, nil
}
