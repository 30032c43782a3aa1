// Bench measures whole commands: wall time and peak memory, the median of several
// runs. `make bench` calls it; docs/performance.md says how to read it.
//
//	go run ./internal/bench -dump vmcore [-vmlinux vmlinux] [-runs 9]
//
// With -vmlinux, drgn and crash are measured beside it, as far as they are there.
// Machines are noisy: compare the ratios of one run, not the times of two.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	dump := flag.String("dump", "testdata/example.kdump", "the dump")
	vmlinux := flag.String("vmlinux", "", "its vmlinux with debuginfo, for drgn and crash")
	runs := flag.Int("runs", 9, "runs of each command")
	flat := flag.Bool("flat", false, "also show that explain does not grow with the machine")
	flag.Parse()
	dir, err := os.MkdirTemp("", "inquest-bench")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b := &bench{runs: *runs, dir: dir, inquest: filepath.Join(dir, "inquest")}
	if out, err := exec.Command("go", "build", "-o", b.inquest, "./cmd/inquest").CombinedOutput(); err != nil {
		log.Fatalf("%s%v", out, err)
	}
	b.compare(*dump, *vmlinux)
	if *flat {
		b.flat(*dump)
	}
}

type bench struct {
	runs    int
	dir     string
	inquest string
}

// measured is the median of several runs.
type measured struct {
	wall time.Duration
	rss  int64 // KiB, the highest
}

func (b *bench) measure(name string, args ...string) (measured, error) {
	var m measured
	var walls []time.Duration
	for range b.runs {
		cmd := exec.Command(name, args...)
		if name == "crash" {
			cmd.Stdin = strings.NewReader("bt\nlog\nps\nquit\n")
		}
		start := time.Now()
		if err := cmd.Run(); err != nil {
			return m, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
		}
		walls = append(walls, time.Since(start))
		m.rss = max(m.rss, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	slices.SortFunc(walls, cmp.Compare)
	m.wall = walls[len(walls)/2]
	return m, nil
}

// compare times Inquest's commands on a dump and, beside them, drgn and crash.
func (b *bench) compare(dump, vmlinux string) {
	fmt.Printf("%s, median of %d runs\n\n| command | wall | peak memory |\n| --- | ---: | ---: |\n", dump, b.runs)
	row := func(label string, name string, args ...string) measured {
		m, err := b.measure(name, args...)
		if err != nil {
			fmt.Printf("| %s | %v | |\n", label, err)
			return m
		}
		fmt.Printf("| %s | %.0f ms | %d MiB |\n", label, float64(m.wall.Microseconds())/1000, m.rss>>10)
		return m
	}
	explain := row("`inquest explain`", b.inquest, "explain", dump)
	row("`inquest bt --all`", b.inquest, "bt", "--all", dump)
	row("`inquest ps`", b.inquest, "ps", dump)
	row("`inquest log`", b.inquest, "log", dump)
	if vmlinux == "" {
		return
	}
	var ratios []string
	for _, other := range []struct {
		label, name string
		args        []string
	}{
		{"drgn with debuginfo: crashed stack, log", "drgn", []string{"-q", "-c", dump, "-s", vmlinux, b.drgnScript()}},
		{"crash: `bt; log; ps`", "crash", []string{"-s", vmlinux, dump}},
	} {
		if _, err := exec.LookPath(other.name); err != nil {
			fmt.Printf("| %s | not installed | |\n", other.label)
			continue
		}
		if m := row(other.label, other.name, other.args...); m.wall > 0 && explain.wall > 0 {
			ratios = append(ratios, fmt.Sprintf("1/%.1f of %s", m.wall.Seconds()/explain.wall.Seconds(), other.name))
		}
	}
	if len(ratios) > 0 {
		fmt.Printf("\nexplain takes %s.\n", strings.Join(ratios, ", "))
	}
}

// drgnScript is what an engineer would ask drgn: the crashed thread's stack, and
// the log.
func (b *bench) drgnScript() string {
	path := filepath.Join(b.dir, "bench.py")
	script := "from drgn.helpers.linux.printk import print_dmesg\nprint(prog.crashed_thread().stack_trace())\nprint_dmesg(prog)\n"
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		log.Fatal(err)
	}
	return path
}
