package checks

import "basalt/tests/chaos/history"

// Timeline checks that what happened is one history: revisions go up by one, no key changes twice in one, and creation, version and
// previous value of each event follow from all before it.
func Timeline(record *history.Record, line *history.Timeline) []Violation {
	found := findings{check: "timeline"}
	last := record.First
	for _, event := range record.Events {
		switch {
		case event.KV.Mod == last || event.KV.Mod == last+1:
		case event.KV.Mod < last:
			found.add("revision %d comes after %d", event.KV.Mod, last)
		default:
			found.add("no event has the revisions from %d to %d", last+1, event.KV.Mod-1)
		}
		last = max(last, event.KV.Mod)
	}
	if last < record.Last {
		found.add("the store is at %d, but events end at %d", record.Last, last)
	}
	walk := line.Walk()
	for revision := record.First + 1; revision <= line.Last; revision++ {
		changed := map[string]bool{}
		for _, event := range line.At(revision) {
			key := event.KV.Key
			if changed[key] {
				found.add("%q changes twice at revision %d", key, revision)
			}
			changed[key] = true
			checkEvent(&found, walk.State, event.Event)
		}
		walk.To(revision)
	}
	return found.found
}

// checkEvent compares an event with the state before it.
func checkEvent(found *findings, before history.State, event history.Event) {
	previous, was := before[event.KV.Key]
	switch {
	case event.Delete && !was:
		found.add("%q is deleted at %d and was not there", event.KV.Key, event.KV.Mod)
	case !event.Delete && !was && (event.KV.Create != event.KV.Mod || event.KV.Version != 1):
		found.add("%q is created at %d, but says creation %d, version %d", event.KV.Key, event.KV.Mod, event.KV.Create, event.KV.Version)
	case !event.Delete && was && (event.KV.Create != previous.Create || event.KV.Version != previous.Version+1):
		found.add("%q says at %d creation %d, version %d, and before creation %d, version %d", event.KV.Key, event.KV.Mod,
			event.KV.Create, event.KV.Version, previous.Create, previous.Version)
	}
	if event.Previous != nil && (!was || *event.Previous != previous) {
		found.add("the event of %q at %d says that it was %+v, and it was %+v", event.KV.Key, event.KV.Mod, *event.Previous, previous)
	}
}
