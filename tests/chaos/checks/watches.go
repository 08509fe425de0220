package checks

import (
	"sort"

	"basalt/tests/chaos/history"
)

// Watches checks each watcher through all its resumptions: its events are filtered, ordered, unique, whole by revision, without a
// gap, equal to what happened (with creation and previous value), and no promise of progress goes ahead of them. One that was awaited has
// heard everything.
func Watches(record *history.Record, line *history.Timeline) []Violation {
	found := findings{check: "watches"}
	index := newEventIndex(record)
	for _, watch := range record.Watches {
		checkWatch(&found, record, index.of(watch), watch)
	}
	return found.found
}

// eventIndex finds the events of a watcher without looking at all.
type eventIndex struct {
	all   []history.Told
	byKey map[string][]history.Told
}

func newEventIndex(record *history.Record) *eventIndex {
	index := &eventIndex{record.Events, map[string][]history.Told{}}
	for _, event := range record.Events {
		index.byKey[event.KV.Key] = append(index.byKey[event.KV.Key], event)
	}
	return index
}

func (i *eventIndex) of(watch *history.Watch) []history.Told {
	if watch.End == "" {
		return i.byKey[watch.Key]
	}
	var within []history.Told
	for _, event := range i.all {
		if history.Within(event.KV.Key, watch.Key, watch.End) {
			within = append(within, event)
		}
	}
	return within
}

// checkWatch goes along the watcher's own events, `wanted`, once.
func checkWatch(found *findings, record *history.Record, wanted []history.Told, watch *history.Watch) {
	next, told := 0, record.First // the next of wanted; all up to `told` has been told
	for at, segment := range watch.Segments {
		if at == 0 {
			told = segment.Start - 1
		}
		if segment.Start > told+1 {
			found.add("%s resumes at %d, but was told up to %d", watch.Name, segment.Start, told)
		}
		next = sort.Search(len(wanted), func(at int) bool { return wanted[at].KV.Mod >= segment.Start })
		told = max(told, segment.Start-1)
		if segment.CompactRevision > 0 {
			told = checkCompacted(found, record, watch, &segment, told)
		}
		last := segment.Start - 1 // newest revision of this segment
		for _, response := range segment.Responses {
			for at, event := range response.Events {
				revision := event.KV.Mod
				switch {
				case !history.Within(event.KV.Key, watch.Key, watch.End):
					found.add("%s: not asked for: %+v", watch.Name, event)
					continue
				case revision < segment.Start:
					found.add("%s from %d: an earlier event: %+v", watch.Name, segment.Start, event)
					continue
				case revision < last || (at == 0 && revision == last):
					found.add("%s: again, or too late, after %d: %+v", watch.Name, last, event)
					continue
				case revision > response.Revision:
					found.add("%s: an event behind the header's revision %d: %+v", watch.Name, response.Revision, event)
				}
				last = revision
				if next >= len(wanted) || wanted[next].KV.Mod > revision {
					found.add("%s: what did not happen: %+v", watch.Name, event)
					continue
				}
				if wanted[next].KV.Mod < revision {
					found.add("%s: missed before %d: %+v", watch.Name, revision, wanted[next].Event)
					for next < len(wanted) && wanted[next].KV.Mod < revision {
						next++
					}
				}
				if next < len(wanted) && !same(event, wanted[next].Event, watch.Previous) {
					found.add("%s: %+v, but what happened is %+v", watch.Name, event, wanted[next].Event)
				}
				next++
			}
			if len(response.Events) > 0 {
				if next < len(wanted) && wanted[next].KV.Mod == last {
					found.add("%s: revision %d is told in part, without %+v", watch.Name, last, wanted[next].Event)
					for next < len(wanted) && wanted[next].KV.Mod == last {
						next++
					}
				}
				told = max(told, last)
			}
			if response.Progress {
				if next < len(wanted) && wanted[next].KV.Mod <= response.Revision {
					found.add("%s: progress to %d, ahead of %+v", watch.Name, response.Revision, wanted[next].Event)
				}
				if response.Revision < last {
					found.add("%s: progress goes back from %d to %d", watch.Name, last, response.Revision)
				}
				last = max(last, response.Revision)
				told = max(told, response.Revision)
			}
		}
	}
	if watch.Awaited && next < len(wanted) && wanted[next].KV.Mod <= record.Last {
		found.add("%s ends without %+v", watch.Name, wanted[next].Event)
	}
}

// checkCompacted judges the end of a watch whose start is compacted, and returns up to where its owner may go on without a gap.
func checkCompacted(found *findings, record *history.Record, watch *history.Watch, segment *history.Segment, told int64) int64 {
	var asked int64
	for _, compaction := range record.Compacted {
		asked = max(asked, compaction.Revision)
	}
	if segment.CompactRevision > asked || segment.Start >= segment.CompactRevision {
		found.add("%s from %d was ended as compacted at %d, and compaction was asked for up to %d",
			watch.Name, segment.Start, segment.CompactRevision, asked)
	}
	return max(told, segment.CompactRevision-1)
}

// same compares events; a previous value may lack if it is compacted, which only its place tells: a lacking one is let be.
func same(told, happened history.Event, previous bool) bool {
	if told.Delete != happened.Delete || told.KV != happened.KV {
		return false
	}
	return !previous || told.Previous == nil || happened.Previous == nil || *told.Previous == *happened.Previous
}
