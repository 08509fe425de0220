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
	states := newRangeStates(reads, line)
	for _, read := range reads {
		if at(read) < record.First || at(read) > line.Last || read.Revision < at(read) {
			found.add("a revision that never was: %+v", *read)
			continue
		}
		states.to(at(read))
		if want := states.sorted(read); !slices.Equal(read.KVs, want) || read.Count != int64(len(want)) {
			found.add("%+v, but the store was %+v", *read, want)
		}
	}
	return found.found
}

// keyRange is a range as etcd means it.
type keyRange struct{ key, end string }

// rangeStates is the store at one revision, cut into the ranges that are read: few, and each much smaller than all.
type rangeStates struct {
	revision int64
	line     *history.Timeline
	states   map[keyRange]history.State
}

func newRangeStates(reads []*history.Read, line *history.Timeline) *rangeStates {
	made := &rangeStates{line.First, line, map[keyRange]history.State{}}
	for _, read := range reads {
		made.states[keyRange{read.Key, read.End}] = history.State{}
	}
	for wanted, state := range made.states {
		for key, kv := range line.Base {
			if history.Within(key, wanted.key, wanted.end) {
				state[key] = kv
			}
		}
	}
	return made
}

// to goes on to a revision, which is not behind.
func (r *rangeStates) to(revision int64) {
	for r.revision < revision {
		r.revision++
		for _, event := range r.line.At(r.revision) {
			for wanted, state := range r.states {
				switch {
				case !history.Within(event.KV.Key, wanted.key, wanted.end):
				case event.Delete:
					delete(state, event.KV.Key)
				default:
					state[event.KV.Key] = event.KV
				}
			}
		}
	}
}

func (r *rangeStates) sorted(read *history.Read) []history.KV {
	var kvs []history.KV
	for _, kv := range r.states[keyRange{read.Key, read.End}] {
		kvs = append(kvs, kv)
	}
	slices.SortFunc(kvs, func(a, b history.KV) int { return cmp.Compare(a.Key, b.Key) })
	return kvs
}
