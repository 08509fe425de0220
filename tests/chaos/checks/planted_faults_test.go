package checks

import (
	"slices"

	"basalt/tests/chaos/history"
)

// plantedFault changes a sound history; false if there is no place for it.
type plantedFault struct {
	name  string
	want  string
	plant func(*history.Record) bool
}

// firstWrite finds one that fulfils all.
func firstWrite(record *history.Record, fulfils ...func(*history.Write) bool) *history.Write {
	for _, write := range record.Writes {
		if !slices.ContainsFunc(fulfils, func(f func(*history.Write) bool) bool { return !f(write) }) {
			return write
		}
	}
	return nil
}

func changed(write *history.Write) bool     { return write.Changed() }
func lonePut(write *history.Write) bool     { return len(write.Changes) == 1 && !write.Changes[0].Delete }
func conditional(write *history.Write) bool { return write.If != nil }
func acknowledged(write *history.Write) bool {
	return write.Outcome == history.Acknowledged
}

// lose removes the events of a revision and moves all behind it down: as if it had never been.
func lose(record *history.Record, revision int64) {
	record.Events = slices.DeleteFunc(record.Events, func(told history.Told) bool { return told.KV.Mod == revision })
}

func response(record *history.Record, watch string, fulfils func(*history.Response) bool) (*history.Segment, int) {
	for _, one := range record.Watches {
		for at := range one.Segments {
			segment := &one.Segments[at]
			for n := range segment.Responses {
				if one.Name == watch && fulfils(&segment.Responses[n]) {
					return segment, n
				}
			}
		}
	}
	return nil, 0
}

func withEvents(response *history.Response) bool  { return len(response.Events) > 0 }
func withSeveral(response *history.Response) bool { return len(response.Events) > 1 }

var plantedFaults = []plantedFault{
	{"an acknowledged write is lost", "writes: acknowledged and lost", func(record *history.Record) bool {
		write := firstWrite(record, changed)
		lose(record, write.Revision)
		return true
	}},
	{"an acknowledged write of another value", "writes: acknowledged as", func(record *history.Record) bool {
		write := firstWrite(record, changed, lonePut)
		write.Changes[0].Value = "another"
		return true
	}},
	{"one revision for two writes", "was acknowledged to", func(record *history.Record) bool {
		write := firstWrite(record, changed)
		twin := *write
		record.Writes = append(record.Writes, &twin)
		return true
	}},
	{"a write that deleted more than happened", "writes: acknowledged as", func(record *history.Record) bool {
		write := firstWrite(record, changed, func(w *history.Write) bool { return w.Deleted == 1 })
		if write == nil {
			return false
		}
		write.Deleted = 2
		return true
	}},
	{"a condition that did not hold", "writes: the condition of", func(record *history.Record) bool {
		write := firstWrite(record, acknowledged, conditional, changed)
		if write == nil {
			return false
		}
		write.If.Mod += 1000
		return true
	}},
	{"a condition that held and failed", "writes: the condition of", func(record *history.Record) bool {
		write := firstWrite(record, acknowledged, conditional, func(w *history.Write) bool { return !w.Succeeded })
		if write == nil {
			return false
		}
		walk := history.NewTimeline(record).Walk()
		walk.To(write.Revision)
		write.If.Mod = walk.State[write.If.Key].Mod
		return true
	}},
	{"a revision of the future", "a revision that never was", func(record *history.Record) bool {
		write := firstWrite(record, acknowledged, conditional, func(w *history.Write) bool { return !w.Succeeded })
		if write == nil {
			return false
		}
		write.Revision = record.Last + 50
		return true
	}},
	{"a write that nobody ordered", "what nobody ordered", func(record *history.Record) bool {
		write := firstWrite(record, changed)
		record.Writes = slices.DeleteFunc(record.Writes, func(w *history.Write) bool { return w == write })
		return true
	}},
	{"a refused write happened", "refused with", func(record *history.Record) bool {
		write := firstWrite(record, changed, lonePut)
		write.Outcome = history.Refused
		return true
	}},
	{"an acknowledged write happened elsewhere", "but it happened at", func(record *history.Record) bool {
		write := firstWrite(record, changed, lonePut)
		write.Revision = record.Last + 1
		return true
	}},
	{"an unanswered write happened twice", "writes: happened twice", func(record *history.Record) bool {
		write := firstWrite(record, changed, lonePut, func(w *history.Write) bool { return w.If == nil })
		write.Outcome = history.Unknown
		last := record.Events[len(record.Events)-1]
		again := history.Told{At: last.At}
		again.KV = history.KV{Key: write.Changes[0].Key, Value: write.Changes[0].Value, Mod: last.KV.Mod + 1}
		record.Events = append(record.Events, again)
		record.Last++
		return true
	}},
	{"an unanswered write happened in part", "writes: happened in part", func(record *history.Record) bool {
		write := firstWrite(record, changed, func(w *history.Write) bool { return len(w.Changes) == 2 && w.If == nil })
		if write == nil {
			return false
		}
		write.Outcome = history.Unknown
		at := slices.IndexFunc(record.Events, func(told history.Told) bool { return told.KV.Mod == write.Revision })
		record.Events = slices.Delete(record.Events, at, at+1)
		return true
	}},
	{"an unanswered write happened against its condition", "against its condition", func(record *history.Record) bool {
		write := firstWrite(record, changed, lonePut)
		write.Outcome = history.Unknown
		write.If = &history.Compare{Key: write.Changes[0].Key, Mod: 4}
		return true
	}},
	{"an unanswered write happened before it was asked for", "before it was asked for", func(record *history.Record) bool {
		write := firstWrite(record, changed, lonePut, func(w *history.Write) bool { return w.If == nil })
		write.Outcome = history.Unknown
		write.Call += 3 * ms
		return true
	}},
	{"a write behind one that was told before", "real time:", func(record *history.Record) bool {
		write := firstWrite(record, changed)
		write.Call, write.Return = record.Writes[len(record.Writes)-1].Return, history.Never-1
		return true
	}},
	{"a linearizable read of the past", "real time:", func(record *history.Record) bool {
		read := record.Reads[len(record.Reads)-1]
		read.Serializable, read.Revision, read.KVs, read.Count = false, record.First, []history.KV{record.Base["k/1"]}, 1
		return true
	}},
	{"a member that goes back", "real time: member", func(record *history.Record) bool {
		read := record.Reads[len(record.Reads)-1]
		record.Reads[len(record.Reads)-2].Member = read.Member
		read.Serializable, read.Revision, read.KVs, read.Count = true, record.First, []history.KV{record.Base["k/1"]}, 1
		return true
	}},
	{"a serializable read that misses a key", "reads:", func(record *history.Record) bool {
		read := record.Reads[len(record.Reads)-1]
		read.Serializable, read.KVs = true, read.KVs[1:]
		return true
	}},
	{"a count that is wrong", "reads:", func(record *history.Record) bool {
		record.Reads[0].Count++
		return true
	}},
	{"a read of an old version", "reads:", func(record *history.Record) bool {
		read := record.Reads[len(record.Reads)-1]
		read.KVs[0].Version--
		return true
	}},
	{"a read at a revision that never was", "reads: a revision that never was", func(record *history.Record) bool {
		record.Reads[0].Revision = record.Last + 99
		return true
	}},
	{"a gap in the revisions", "timeline: no event has", func(record *history.Record) bool {
		lose(record, record.First+3)
		return true
	}},
	{"a revision that goes back", "timeline: revision", func(record *history.Record) bool {
		record.Events = append(record.Events, record.Events[0])
		return true
	}},
	{"events end early", "but events end at", func(record *history.Record) bool {
		lose(record, record.Last)
		return true
	}},
	{"a key that changes twice in one revision", "changes twice", func(record *history.Record) bool {
		at := slices.IndexFunc(record.Events, func(told history.Told) bool { return !told.Delete })
		record.Events = slices.Insert(record.Events, at, record.Events[at])
		return true
	}},
	{"a delete of what was not there", "and was not there", func(record *history.Record) bool {
		last := record.Events[len(record.Events)-1]
		last.Delete, last.KV = true, history.KV{Key: "k/none", Mod: last.KV.Mod}
		record.Events[len(record.Events)-1] = last
		return true
	}},
	{"a created key with an older creation", "is created at", func(record *history.Record) bool {
		for at := range record.Events {
			if event := &record.Events[at]; !event.Delete && event.KV.Version == 1 {
				event.KV.Create--
				return true
			}
		}
		return false
	}},
	{"a version that is left out", "and before creation", func(record *history.Record) bool {
		for at := range record.Events {
			if event := &record.Events[at]; !event.Delete && event.KV.Version > 1 {
				event.KV.Version++
				return true
			}
		}
		return false
	}},
	{"a wrong previous value", "says that it was", func(record *history.Record) bool {
		for at := range record.Events {
			if event := &record.Events[at]; event.Previous != nil {
				wrong := *event.Previous
				wrong.Value = "wrong"
				event.Previous = &wrong
				return true
			}
		}
		return false
	}},
	{"a watch misses a response", "watches: prefix: missed before", func(record *history.Record) bool {
		segment, at := response(record, "prefix", withEvents)
		segment.Responses = slices.Delete(segment.Responses, at, at+1)
		return true
	}},
	{"a watch misses a part of a revision", "is told in part", func(record *history.Record) bool {
		segment, at := response(record, "prefix", withSeveral)
		if segment == nil {
			return false
		}
		segment.Responses[at].Events = segment.Responses[at].Events[:1]
		return true
	}},
	{"a watch tells a revision in two responses", "again, or too late", func(record *history.Record) bool {
		segment, at := response(record, "prefix", withSeveral)
		if segment == nil {
			return false
		}
		second := segment.Responses[at]
		second.Events, segment.Responses[at].Events = second.Events[1:], second.Events[:1:1]
		segment.Responses = slices.Insert(segment.Responses, at+1, second)
		return true
	}},
	{"a watch hears twice", "again, or too late", func(record *history.Record) bool {
		segment, at := response(record, "prefix", withEvents)
		segment.Responses = slices.Insert(segment.Responses, at, segment.Responses[at])
		return true
	}},
	{"a watch hears out of order", "again, or too late", func(record *history.Record) bool {
		segment, at := response(record, "all", withEvents)
		segment.Responses[at], segment.Responses[at+1] = segment.Responses[at+1], segment.Responses[at]
		return true
	}},
	{"a resumed watch hears again", "an earlier event", func(record *history.Record) bool {
		watch := record.Watches[1]
		if len(watch.Segments) != 2 || !withEvents(&watch.Segments[0].Responses[0]) {
			return false
		}
		watch.Segments[1].Responses = slices.Insert(watch.Segments[1].Responses, 0, watch.Segments[0].Responses[0])
		return true
	}},
	{"a watch resumes too late", "watches: prefix resumes at", func(record *history.Record) bool {
		watch := record.Watches[1]
		if len(watch.Segments) != 2 {
			return false
		}
		watch.Segments[1].Start += 2
		return true
	}},
	{"a watch hears of other keys", "not asked for", func(record *history.Record) bool {
		segment, at := response(record, "key", withEvents)
		segment.Responses[at].Events[0].KV.Key = "k/other"
		return true
	}},
	{"a watch hears what did not happen", "what did not happen", func(record *history.Record) bool {
		segment, _ := response(record, "all", withEvents)
		invented := history.Event{KV: history.KV{Key: "k/1", Mod: record.Last + 5}}
		segment.Responses = append(segment.Responses, history.Response{Revision: record.Last + 5, Events: []history.Event{invented}})
		return true
	}},
	{"a watch hears a wrong value", "but what happened is", func(record *history.Record) bool {
		segment, at := response(record, "all", withEvents)
		segment.Responses[at].Events[0].KV.Value = "wrong"
		return true
	}},
	{"a watch hears a wrong previous value", "but what happened is", func(record *history.Record) bool {
		segment, at := response(record, "all", func(r *history.Response) bool { return withEvents(r) && r.Events[0].Previous != nil })
		wrong := *segment.Responses[at].Events[0].Previous
		wrong.Mod--
		segment.Responses[at].Events[0].Previous = &wrong
		return true
	}},
	{"a watch hears a put for a delete", "but what happened is", func(record *history.Record) bool {
		segment, at := response(record, "all", withEvents)
		segment.Responses[at].Events[0].Delete = !segment.Responses[at].Events[0].Delete
		return true
	}},
	{"progress ahead of events", "ahead of", func(record *history.Record) bool {
		segment, at := response(record, "prefix", withEvents)
		segment.Responses = slices.Insert(segment.Responses, at, history.Response{Revision: segment.Responses[at].Revision, Progress: true})
		return true
	}},
	{"progress goes back", "progress goes back", func(record *history.Record) bool {
		segment, at := response(record, "prefix", withEvents)
		segment.Responses = slices.Insert(segment.Responses, at+1, history.Response{Revision: 1, Progress: true})
		return true
	}},
	{"an event behind its header", "behind the header's revision", func(record *history.Record) bool {
		segment, at := response(record, "prefix", withEvents)
		segment.Responses[at].Revision--
		return true
	}},
	{"a watch that never ends its tale", "ends without", func(record *history.Record) bool {
		watch := record.Watches[0]
		segment := &watch.Segments[len(watch.Segments)-1]
		segment.Responses = segment.Responses[:len(segment.Responses)-1]
		return true
	}},
	{"a watch is ended as compacted without reason", "was ended as compacted", func(record *history.Record) bool {
		record.Watches[0].Segments = append([]history.Segment{{Start: 11, CompactRevision: 30}}, record.Watches[0].Segments...)
		return true
	}},
	{"a lease ends early", "leases: 100 ended at", func(record *history.Record) bool {
		record.Leases[0].Renewals[0].Send += 200 * ms
		return true
	}},
	{"a lease is said to have ended early", "was said to have ended", func(record *history.Record) bool {
		record.Leases[0].Lost = record.Leases[0].Granted + ms
		return true
	}},
	{"a lease never ends", "leases: 100 never ended", func(record *history.Record) bool {
		at := slices.IndexFunc(record.Events, func(told history.Told) bool { return told.Delete && told.KV.Key == "l/100" })
		record.Events = slices.Delete(record.Events, at, at+1)
		return true
	}},
	{"members differ", "members: members differ", func(record *history.Record) bool {
		record.Hashes["m1"]++
		return true
	}},
}
