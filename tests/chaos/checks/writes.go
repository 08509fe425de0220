package checks

import (
	"slices"

	"basalt/tests/chaos/history"
)

// Writes checks that every acknowledged write happened at its revision and nowhere else, that a refused one did not happen, that an
// unanswered one happened once or not at all, and that nothing happened which nobody ordered. A condition that held or not is compared
// with the state of that time.
func Writes(record *history.Record, line *history.Timeline) []Violation {
	check := &writes{found: findings{check: "writes"}, record: record, line: line, owners: map[int64]*history.Write{}}
	check.own()
	check.conditions()
	check.everyEventHasAnOwner()
	return check.found.found
}

type writes struct {
	found  findings
	record *history.Record
	line   *history.Timeline
	// owners are the acknowledged writes by revision.
	owners map[int64]*history.Write
}

// own compares each acknowledged write with what happened at its revision.
func (w *writes) own() {
	for _, write := range w.record.Writes {
		if !write.Changed() {
			continue
		}
		if other := w.owners[write.Revision]; other != nil {
			w.found.add("revision %d was acknowledged to %+v and to %+v", write.Revision, *other, *write)
			continue
		}
		w.owners[write.Revision] = write
		events := w.line.At(write.Revision)
		if len(events) == 0 {
			w.found.add("acknowledged and lost: %+v", *write)
		} else if !made(write, events, int(write.Deleted)) {
			w.found.add("acknowledged as %+v, but what happened there is %+v", *write, events)
		}
	}
}

// made says whether these events are just what a write makes, with `deleted` of its deletions or, if negative, any of them.
func made(write *history.Write, events []history.Told, deleted int) bool {
	matched, deletions := 0, 0
	for _, change := range write.Changes {
		at := slices.IndexFunc(events, func(event history.Told) bool {
			return event.KV.Key == change.Key && event.Delete == change.Delete &&
				(change.Delete || (event.KV.Value == change.Value && event.KV.LeaseID == change.LeaseID))
		})
		switch {
		case at >= 0:
			matched++
			if change.Delete {
				deletions++
			}
		case !change.Delete:
			return false
		}
	}
	return matched == len(events) && (deleted < 0 || deletions == deleted)
}

// conditions compares each condition with the state before its transaction.
func (w *writes) conditions() {
	var conditional []*history.Write
	for _, write := range w.record.Writes {
		if write.Outcome == history.Acknowledged && write.If != nil {
			conditional = append(conditional, write)
		}
	}
	before := func(write *history.Write) int64 {
		if write.Changed() {
			return write.Revision - 1
		}
		return write.Revision
	}
	slices.SortStableFunc(conditional, func(a, b *history.Write) int { return int(before(a) - before(b)) })
	walk := w.line.Walk()
	for _, write := range conditional {
		if before(write) < w.record.First || before(write) > w.line.Last {
			w.found.add("a revision that never was: %+v", *write)
			continue
		}
		walk.To(before(write))
		if held := walk.State[write.If.Key].Mod == write.If.Mod; held != write.Succeeded {
			w.found.add("the condition of %+v: %q was at %d", *write, write.If.Key, walk.State[write.If.Key].Mod)
		}
	}
}

// everyEventHasAnOwner explains the revisions that no acknowledged write has.
func (w *writes) everyEventHasAnOwner() {
	byValue, deletes := map[string]*history.Write{}, map[string][]*history.Write{}
	for _, write := range w.record.Writes {
		for _, change := range write.Changes {
			if !change.Delete {
				byValue[change.Value] = write
			} else if write.Outcome == history.Unknown && len(write.Changes) == 1 {
				deletes[change.Key] = append(deletes[change.Key], write)
			}
		}
	}
	leases := map[int64]bool{}
	for _, lease := range w.record.Leases {
		leases[lease.ID] = true
	}
	for _, kv := range w.record.Base {
		leases[kv.LeaseID] = true // of earlier clients
	}
	happened, walk := map[*history.Write]int64{}, w.line.Walk()
	for revision := w.record.First + 1; revision <= w.line.Last; revision++ {
		events := w.line.At(revision)
		state := walk
		state.To(revision - 1)
		if len(events) == 0 || w.owners[revision] != nil {
			continue
		}
		owner := ownerOf(events, byValue, deletes)
		switch {
		case owner == nil && endOfLease(events, state.State, leases):
		case owner == nil:
			w.found.add("at revision %d happened what nobody ordered: %+v", revision, events)
		case owner.Outcome == history.Refused:
			w.found.add("refused with %q, but it happened at %d: %+v", owner.Error, revision, *owner)
		case owner.Outcome == history.Acknowledged:
			w.found.add("acknowledged at %d, but it happened at %d: %+v", owner.Revision, revision, *owner)
		case happened[owner] != 0:
			w.found.add("happened twice, at %d and %d: %+v", happened[owner], revision, *owner)
		case !made(owner, events, -1):
			w.found.add("happened in part at %d, %+v, of %+v", revision, events, *owner)
		default:
			happened[owner] = revision
			if owner.If != nil && state.State[owner.If.Key].Mod != owner.If.Mod {
				w.found.add("happened at %d against its condition: %+v", revision, *owner)
			}
			if events[0].At < owner.Call {
				w.found.add("happened before it was asked for, at %d: %+v", revision, *owner)
			}
		}
	}
}

// ownerOf finds the write whose value stands in one of the events, or an unanswered lone deletion of the key, which is used up.
func ownerOf(events []history.Told, byValue map[string]*history.Write, deletes map[string][]*history.Write) *history.Write {
	for _, event := range events {
		if !event.Delete {
			return byValue[event.KV.Value]
		}
	}
	key := events[0].KV.Key
	for at, write := range deletes[key] {
		if len(events) == 1 && write.Call <= events[0].At {
			deletes[key] = slices.Delete(deletes[key], at, at+1)
			return write
		}
	}
	return nil
}

// endOfLease says whether the events are all keys of one lease going.
func endOfLease(events []history.Told, before history.State, leases map[int64]bool) bool {
	id := before[events[0].KV.Key].LeaseID
	for _, event := range events {
		if !event.Delete || id == 0 || before[event.KV.Key].LeaseID != id || !leases[id] {
			return false
		}
	}
	return true
}
