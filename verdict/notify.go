package verdict

import (
	"context"
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notify tells systemd, if it listens, see sd_notify(3).
func notify(state string) { systemd.SdNotify(false, state) }

// notifyReloading begins a reload as Type=notify-reload wants it; notifyReady ends it.
func notifyReloading() {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", systemd.SdNotifyReloading, now.Nano()/1e3))
}

func notifyReady(status string) { notify(systemd.SdNotifyReady + "\nSTATUS=" + status) }

func notifyStopping() { notify(systemd.SdNotifyStopping) }

// watchdog tells systemd that all is well, as often as it wants to hear it, while healthy
// says so. It returns when the context ends.
func watchdog(ctx context.Context, healthy func() error) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if healthy() == nil {
				notify(systemd.SdNotifyWatchdog)
			}
		}
	}
}
