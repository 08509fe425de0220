package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"basalt/tests/chaos/figures"
)

// measure is what bench/failover and bench/lagging call: true if the first argument was one of theirs.
func measure(ctx context.Context, args []string) (known bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	etcd := flags.String("etcd", "", "genuine etcd; none to measure basalt alone")
	basalt := flags.String("basalt", "", "basalt; none to measure etcd alone")
	folder := flags.String("folder", "", "where data goes")
	times := flags.Int("times", 20, "how often the leader is lost in each way")
	puts := flags.Int("puts", 100_000, "puts that a member misses; 0 leaves it out")
	mebibytes := flags.Int("state-mib", 1024, "MiB of the state of which a member misses the newer half; 0 leaves it out")
	options := func() (figures.Options, error) {
		if err := flags.Parse(args[1:]); err != nil {
			return figures.Options{}, err
		}
		made := figures.Options{Folder: *folder, Say: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }}
		for _, side := range []figures.Side{{Name: "etcd", Binary: *etcd}, {Name: "basalt", Binary: *basalt}} {
			if side.Binary != "" {
				made.Sides = append(made.Sides, side)
			}
		}
		return made, nil
	}
	switch args[0] {
	case "failover":
		made, err := options()
		if err == nil {
			err = figures.Failover(ctx, made, *times)
		}
		return true, err
	case "lagging":
		made, err := options()
		if err != nil {
			return true, err
		}
		var aways []figures.Away
		if *puts > 0 {
			aways = append(aways, figures.Away{Name: fmt.Sprintf("%d puts of 256 B", *puts), Before: *puts, Puts: *puts, Bytes: 256})
		}
		if *mebibytes > 0 {
			aways = append(aways, figures.Away{
				Name: fmt.Sprintf("half of %d MiB, 16 KiB each", *mebibytes), Before: *mebibytes * 32, Puts: *mebibytes * 32, Bytes: 16 << 10,
			})
		}
		return true, figures.Lagging(ctx, made, aways)
	}
	return false, nil
}
