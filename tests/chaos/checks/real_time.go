package checks

import (
	"cmp"
	"slices"
	"time"

	"basalt/tests/chaos/history"
)

// RealTime checks that nobody's newest is older than what anybody was told before he asked: a write comes behind it, a linearizable
// read shows it. A serializable read may be old, but a member never goes back behind what it told itself in the same life. In the next one
// it knows again what was committed when it hears from a leader, as etcd's does.
func RealTime(record *history.Record) []Violation {
	found := findings{check: "real time"}
	type life struct{ member, number int }
	type seen struct {
		at       time.Duration
		revision int64
		by       life
	}
	type ask struct {
		call     time.Duration
		revision int64
		what     any
		of       life
		stale    bool // may be old
		changed  bool
	}
	var told []seen
	var asked []ask
	for _, write := range record.Writes {
		if write.Outcome == history.Acknowledged {
			told = append(told, seen{write.Return, write.Revision, life{write.Member, write.Life}})
			asked = append(asked, ask{write.Call, write.Revision, write, life{write.Member, write.Life}, false, write.Changed()})
		}
	}
	for _, read := range record.Reads {
		told = append(told, seen{read.Return, read.Revision, life{read.Member, read.Life}})
		asked = append(asked, ask{read.Call, read.Revision, read, life{read.Member, read.Life}, read.Serializable, false})
	}
	for _, event := range record.Events {
		told = append(told, seen{event.At, event.KV.Mod, life{-1, 0}})
	}
	slices.SortFunc(told, func(a, b seen) int { return cmp.Compare(a.at, b.at) })
	slices.SortFunc(asked, func(a, b ask) int { return cmp.Compare(a.call, b.call) })
	newest, newestOf, next := record.First, map[life]int64{}, 0
	for _, ask := range asked {
		for ; next < len(told) && told[next].at < ask.call; next++ {
			newest = max(newest, told[next].revision)
			newestOf[told[next].by] = max(newestOf[told[next].by], told[next].revision)
		}
		switch {
		case ask.stale && ask.of.number != 0 && ask.revision < newestOf[ask.of]:
			found.add("member %d has told of %d before it answers %+v", ask.of.member, newestOf[ask.of], ask.what)
		case !ask.stale && (ask.revision < newest || (ask.changed && ask.revision == newest)):
			found.add("%d was told before this was asked: %+v", newest, ask.what)
		}
	}
	return found.found
}
