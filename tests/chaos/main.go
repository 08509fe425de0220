// Command chaos runs real members in network namespaces under a recorded load, does harm to them, and judges what clients saw. It is
// started by `run`, which installs and builds what it needs and cleans up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"basalt/tests/chaos/campaign"
	"basalt/tests/chaos/load"
	"basalt/tests/chaos/rig"
	"basalt/tests/chaos/rows"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == rig.ProxyCommand {
		exitOn(rig.ServeProxy(os.Args[2:]))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if known, err := measure(ctx, os.Args[1:]); known {
		exitOn(err)
		return
	}
	var options options
	options.parse()
	exitOn(options.run(ctx))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	binary, newer, name, folder, dumps, disk, judge, rows string
	rounds, members, rate, watches                        int
	seed                                                  uint64
	proxied, clocks, table, quick, full                   bool
}

func (o *options) parse() {
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of the random nemesis")
	flag.BoolVar(&o.table, "table", false, "rows of the acceptance table")
	flag.BoolVar(&o.quick, "quick", false, "a few minutes of both")
	flag.BoolVar(&o.full, "full", false, "rows at the sizes that they name")
	flag.StringVar(&o.rows, "rows", "", "only these rows, as in 1,2,7")
	flag.IntVar(&o.members, "members", 3, "members: 3 or 5")
	flag.Uint64Var(&o.seed, "seed", 0, "seed of faults and load; 0 draws one")
	flag.IntVar(&o.rate, "rate", 200, "calls for keys a second")
	flag.IntVar(&o.watches, "watches", 20, "watchers")
	flag.StringVar(&o.disk, "disk", string(rig.Loop), "what data lies on in rounds: loop (ext4 in a file), memory or folder")
	flag.BoolVar(&o.proxied, "delays", false, "members talk through proxies, so that rounds may have delays")
	flag.BoolVar(&o.clocks, "clocks", true, "members have clocks of their own, so that rounds may step them")
	flag.StringVar(&o.judge, "judge", "", "judge a kept history again, and do nothing else")
	flag.StringVar(&o.binary, "binary", "", "the program basalt; basaltctl lies beside it")
	flag.StringVar(&o.newer, "newer", "", "the program that a rolling upgrade ends with; none restarts the same one")
	flag.StringVar(&o.name, "name", "", "how the names of bridge and namespaces begin")
	flag.StringVar(&o.folder, "folder", "", "where data goes; removed by who made it")
	flag.StringVar(&o.dumps, "dumps", ".", "where the history of a bad round is kept")
	flag.Parse()
	if flag.NArg() > 0 {
		exitOn(fmt.Errorf("unknown argument %q", flag.Arg(0)))
	}
	if o.members != 3 && o.members != 5 {
		exitOn(fmt.Errorf("--members is 3 or 5, not %d", o.members))
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
}

// say prints a line with the time since the beginning.
func say() func(string, ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Printf("%7.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

func (o *options) rig() rig.Options {
	return rig.Options{
		Binary: o.binary, Size: o.members, Network: o.name, Folder: o.folder,
		Disk: rig.DiskKind(o.disk), DiskMiB: 512, Proxied: o.proxied, Clocks: o.clocks,
	}
}

func (o *options) run(ctx context.Context) error {
	if o.judge != "" {
		violations, err := campaign.Again(o.judge)
		for _, violation := range violations {
			fmt.Println(violation)
		}
		fmt.Printf("%d violations\n", len(violations))
		return err
	}
	fmt.Printf("seed %d, %d members, %s\n", o.seed, o.members, o.binary)
	if o.quick && o.rounds == 0 && o.rows == "" {
		o.rounds = 2
	}
	var failed error
	if o.table || o.quick || o.rows != "" {
		failed = o.playRows(ctx)
	}
	if o.rounds > 0 && ctx.Err() == nil {
		failed = errors.Join(failed, o.playRounds(ctx))
	}
	return failed
}

func (o *options) load() load.Options {
	settings := load.Default(o.seed)
	settings.Rate, settings.Watches = o.rate, o.watches
	return settings
}

func (o *options) playRounds(ctx context.Context) error {
	settings := o.load()
	settings.CompactEvery = 5 * time.Second
	totals, err := campaign.Run(ctx, campaign.Options{
		Rig: o.rig(), Load: settings, Rounds: o.rounds, Seed: o.seed, Dumps: o.dumps, Say: say(),
	})
	fmt.Println(&totals)
	return err
}

func (o *options) playRows(ctx context.Context) error {
	chosen, err := o.chosenRows()
	if err != nil {
		return err
	}
	machines := o.rig()
	// A row that needs a disk or a clock of its own asks for it.
	machines.Disk, machines.Clocks, machines.Proxied = rig.Folder, false, false
	var results []rows.Result
	var failed error
	for _, row := range chosen {
		if ctx.Err() != nil {
			break
		}
		result := rows.Play(ctx, row, rows.Options{Rig: machines, Load: o.load(), Full: o.full, Quick: o.quick, Dumps: o.dumps, Newer: o.newer, Say: say()})
		if result.Err != nil {
			fmt.Printf("row %d is not held: %v\n", row.Number, result.Err)
			failed = errors.Join(failed, fmt.Errorf("row %d is not held", row.Number))
		}
		results = append(results, result)
	}
	fmt.Print("\n", rows.Table(results))
	return failed
}

// chosenRows are those of --rows, else all, or those of the quick form.
func (o *options) chosenRows() ([]rows.Row, error) {
	var chosen []rows.Row
	if o.rows == "" {
		for _, row := range rows.All {
			if row.Quick || !o.quick {
				chosen = append(chosen, row)
			}
		}
		return chosen, nil
	}
	for text := range strings.SplitSeq(o.rows, ",") {
		at := slices.IndexFunc(rows.All, func(row rows.Row) bool { return fmt.Sprint(row.Number) == text })
		if at < 0 {
			return nil, fmt.Errorf("there is no row %q", text)
		}
		chosen = append(chosen, rows.All[at])
	}
	return chosen, nil
}
