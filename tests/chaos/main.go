// Command chaos runs real members in network namespaces under a recorded load, does harm to them, and judges what clients saw. It is
// started by `run`, which installs and builds what it needs and cleans up.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"basalt/tests/chaos/campaign"
	"basalt/tests/chaos/load"
	"basalt/tests/chaos/rig"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == rig.ProxyCommand {
		exitOn(rig.ServeProxy(os.Args[2:]))
		return
	}
	var options options
	options.parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exitOn(options.run(ctx))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "tests/chaos/run: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	binary, name, folder, dumps, disk, judge string
	rounds, members, rate, watches           int
	seed                                     uint64
	proxied, clocks                          bool
}

func (o *options) parse() {
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of the random nemesis")
	flag.IntVar(&o.members, "members", 3, "members: 3 or 5")
	flag.Uint64Var(&o.seed, "seed", 0, "seed of faults and load; 0 draws one")
	flag.IntVar(&o.rate, "rate", 200, "calls for keys a second")
	flag.IntVar(&o.watches, "watches", 20, "watchers")
	flag.StringVar(&o.disk, "disk", string(rig.Loop), "what data lies on in rounds: loop (ext4 in a file), memory or folder")
	flag.BoolVar(&o.proxied, "delays", false, "members talk through proxies, so that rounds may have delays")
	flag.BoolVar(&o.clocks, "clocks", true, "members have clocks of their own, so that rounds may step them")
	flag.StringVar(&o.judge, "judge", "", "judge a kept history again, and do nothing else")
	flag.StringVar(&o.binary, "binary", "", "the program basalt; basaltctl lies beside it")
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
	settings := load.Default(o.seed)
	settings.Rate, settings.Watches, settings.CompactEvery = o.rate, o.watches, 5*time.Second
	fmt.Printf("seed %d: %d rounds, %d members\n", o.seed, o.rounds, o.members)
	totals, err := campaign.Run(ctx, campaign.Options{
		Rig: o.rig(), Load: settings, Rounds: o.rounds, Seed: o.seed, Dumps: o.dumps, Say: say(),
	})
	fmt.Println(&totals)
	return err
}
