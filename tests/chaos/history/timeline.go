package history

// Timeline is the events of a record by revision.
type Timeline struct {
	First, Last int64
	Base        State
	revisions   [][]Told // of First+1 and on
}

// NewTimeline sorts the events of a record by revision. An event at a revision outside (First, Last] is left out, and found where
// events are compared.
func NewTimeline(record *Record) *Timeline {
	line := &Timeline{First: record.First, Last: record.First, Base: record.Base}
	for _, event := range record.Events {
		line.Last = max(line.Last, event.KV.Mod)
	}
	line.revisions = make([][]Told, line.Last-line.First)
	for _, event := range record.Events {
		if event.KV.Mod > line.First {
			line.revisions[event.KV.Mod-line.First-1] = append(line.revisions[event.KV.Mod-line.First-1], event)
		}
	}
	return line
}

// At is what happened at a revision; nothing if it is not of this time.
func (t *Timeline) At(revision int64) []Told {
	if revision <= t.First || revision > t.Last {
		return nil
	}
	return t.revisions[revision-t.First-1]
}

// Walk is a state that goes from revision to revision.
type Walk struct {
	State    State
	Revision int64
	line     *Timeline
}

// Walk begins at the base.
func (t *Timeline) Walk() *Walk {
	state := make(State, len(t.Base))
	for key, kv := range t.Base {
		state[key] = kv
	}
	return &Walk{state, t.First, t}
}

// To goes on to a revision, which is not behind.
func (w *Walk) To(revision int64) {
	for w.Revision < revision {
		w.Revision++
		for _, event := range w.line.At(w.Revision) {
			if event.Delete {
				delete(w.State, event.KV.Key)
			} else {
				w.State[event.KV.Key] = event.KV
			}
		}
	}
}

// Within says whether a key is in a range as etcd means it: `end` empty is the key alone, "\x00" is all behind it.
func Within(key, from, end string) bool {
	switch end {
	case "":
		return key == from
	case "\x00":
		return key >= from
	default:
		return key >= from && key < end
	}
}
