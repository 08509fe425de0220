package checks

import (
	"cmp"
	"slices"

	"basalt/tests/chaos/history"
)

// Reads checks that every answer, linearizable, serializable or of the past, is the store at its revision: keys, values, revisions,
// leases and count.
func Reads(record *history.Record, line *history.Timeline) []Violation {
	found := findings{check: "reads"}
	at := func(read *history.Read) int64 {
		if read.At != 0 {
			return read.At
		}
		return read.Revision
	}
	reads := slices.Clone(record.Reads)
	slices.SortStableFunc(reads, func(a, b *history.Read) int { return cmp.Compare(at(a), at(b)) })
	walk := line.Walk()
	for _, read := range reads {
		if at(read) < record.First || at(read) > line.Last || read.Revision < at(read) {
			found.add("a revision that never was: %+v", *read)
			continue
		}
		walk.To(at(read))
		var want []history.KV
		if read.End == "" {
			if kv, is := walk.State[read.Key]; is {
				want = append(want, kv)
			}
		} else {
			for key, kv := range walk.State {
				if history.Within(key, read.Key, read.End) {
					want = append(want, kv)
				}
			}
			slices.SortFunc(want, func(a, b history.KV) int { return cmp.Compare(a.Key, b.Key) })
		}
		if !slices.Equal(read.KVs, want) || read.Count != int64(len(want)) {
			found.add("%+v, but the store was %+v", *read, want)
		}
	}
	return found.found
}
