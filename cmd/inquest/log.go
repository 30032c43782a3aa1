package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"inquest/internal/spelling"
	"inquest/kernel"
)

var logCommand = &command{
	name:    "log",
	aliases: []string{"dmesg"},
	short:   "print the kernel log",
	long: `Print the kernel's log buffer, oldest record first, as dmesg(1) does.

LEVELS is a list of emerg, alert, crit, err, warn, notice, info, debug or their
numbers 0 to 7; err+ is err and all that is worse.`,
	example: `inquest log vmcore | tail -n 60
inquest log vmcore -T -l warn+
inquest log vmcore --json | jq -r '.records[] | select(.level <= 3) | .text'`,
	setup: func(f *pflag.FlagSet) runFunc {
		human := f.BoolP("ctime", "T", false, "print the date and time of each record, in UTC")
		bare := f.BoolP("notime", "t", false, "print no timestamps")
		levels := f.StringP("level", "l", "", "print only records of these `LEVELS`")
		decode := f.BoolP("decode", "x", false, "print the level in front of each record")
		caller := f.BoolP("caller", "c", false, "print the thread (T) or CPU (C) that logged each record")
		return func(s *session, _ []string) error {
			wanted, err := parseLevels(*levels)
			if err != nil {
				return s.usagef("%v", err)
			}
			k, err := s.Kernel()
			if err != nil {
				return err
			}
			if s.json {
				return logJSON(s, k, wanted)
			}
			p := logPrinter{s: s, bare: *bare, decode: *decode, caller: *caller}
			if *human {
				c, ok := readClock(k)
				if !ok {
					return fmt.Errorf("when the machine booted cannot be told: the kernel's clock is not in the dump; leave out -T")
				}
				p.boot = c.boot()
			}
			return p.run(k, wanted)
		}
	},
}

// levelNames are the log levels as dmesg(1) calls them, from 0.
var levelNames = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}

// parseLevels returns which levels a list names; all when it is empty.
func parseLevels(list string) (wanted [8]bool, err error) {
	for word := range strings.SplitSeq(list, ",") {
		name := strings.ToLower(strings.TrimSpace(word))
		name, andWorse := strings.CutSuffix(name, "+")
		level := slices.Index(levelNames, name)
		if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(levelNames) {
			level = n
		}
		switch {
		case list == "":
			level, andWorse = len(levelNames)-1, true
		case level < 0:
			return wanted, fmt.Errorf("there is no log level %q%s", word, spelling.DidYouMean(spelling.Closest(name, levelNames)))
		}
		wanted[level] = true
		for i := 0; andWorse && i < level; i++ {
			wanted[i] = true
		}
	}
	return wanted, nil
}

type logPrinter struct {
	s                    *session
	boot                 time.Time // zero: print the time since boot
	bare, decode, caller bool
}

func (p *logPrinter) run(k *kernel.Kernel, wanted [8]bool) error {
	shown := 0
	for rec, err := range k.Log() {
		if err != nil {
			if shown == 0 {
				return fmt.Errorf("read the log: %w", err)
			}
			p.s.miss(fmt.Errorf("read the log: %w", err))
			break
		}
		if wanted[rec.Level&7] {
			p.record(rec)
		}
		shown++
	}
	p.s.missing()
	return nil
}

func (p *logPrinter) record(rec kernel.Record) {
	var stamp string
	switch {
	case p.bare:
	case p.boot.IsZero():
		stamp = fmt.Sprintf("[%5d.%06d] ", rec.Time/time.Second, rec.Time%time.Second/time.Microsecond)
	default:
		stamp = p.boot.Add(rec.Time).Format("[Mon Jan _2 15:04:05 2006] ")
	}
	lead := p.s.term.paint(green, stamp)
	if p.decode {
		lead += fmt.Sprintf("%-6s: ", levelNames[rec.Level&7])
	}
	if p.caller {
		lead += fmt.Sprintf("[%7s] ", callerName(rec.Caller))
	}
	// Every line of a record gets the stamp, as on the console.
	for line := range strings.SplitSeq(rec.Text, "\n") {
		line = clean(line)
		switch {
		case rec.Level <= 3:
			line = p.s.term.paint(red, line)
		case rec.Level == 4:
			line = p.s.term.paint(bold, line)
		case rec.Level == 7:
			line = p.s.term.paint(dim, line)
		}
		p.s.printf("%s%s\n", lead, line)
	}
}

// callerName writes a caller id as the console does: T123 or C1; "" for none.
func callerName(id uint32) string {
	const cpu = 1 << 31
	switch {
	case id&cpu != 0:
		return fmt.Sprintf("C%d", id&^cpu)
	case id != 0:
		return fmt.Sprintf("T%d", id)
	}
	return ""
}

type logRecord struct {
	Time     float64 `json:"time"` // seconds since boot
	Level    int     `json:"level"`
	Facility int     `json:"facility"`
	Caller   string  `json:"caller"`
	Text     string  `json:"text"`
}

func logJSON(s *session, k *kernel.Kernel, wanted [8]bool) error {
	records := []logRecord{}
	for rec, err := range k.Log() {
		if err != nil {
			s.miss(fmt.Errorf("read the log: %w", err))
			break
		}
		if wanted[rec.Level&7] {
			records = append(records, logRecord{
				Time:     float64(rec.Time/time.Microsecond) / 1e6,
				Level:    rec.Level,
				Facility: rec.Facility,
				Caller:   callerName(rec.Caller),
				Text:     rec.Text,
			})
		}
	}
	return s.writeJSON(struct {
		Records []logRecord `json:"records"`
		Missing []string    `json:"missing,omitempty"`
	}{records, s.missing()})
}
