package checks

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"basalt/tests/chaos/history"
)

const ms = time.Millisecond

// sound is a history without fault: writes of every outcome, reads, watches with resumptions, leases.
type sound struct {
	record *history.Record
	random *rand.Rand
	state  history.State
	now    time.Duration
	at     int64
	value  int
}

func newSound(seed uint64) *history.Record {
	s := &sound{
		record: &history.Record{First: 10, Base: history.State{"k/1": {Key: "k/1", Value: "base", Create: 3, Mod: 9, Version: 4}}, Hashes: map[string]uint32{"m0": 7, "m1": 7}},
		random: rand.New(rand.NewPCG(seed, 0)), state: history.State{}, at: 10, now: ms,
	}
	for key, kv := range s.record.Base {
		s.state[key] = kv
	}
	for range 60 {
		s.write()
		s.read()
	}
	s.lease(100, false)
	s.lease(101, true)
	s.write()
	s.record.Last = s.at
	s.record.Compacted = []history.Compaction{{Call: ms, Revision: 20}}
	s.watch("all", "\x00", "\x00", 0)
	s.watch("prefix", "k/", "k0", 15)
	s.watch("key", "k/1", "", 20)
	return s.record
}

func (s *sound) key() string { return fmt.Sprintf("k/%d", s.random.IntN(5)) }

// write is one that is acknowledged, unanswered, refused or against its condition; apply is when it happens.
func (s *sound) write() {
	s.value++
	write := &history.Write{Member: s.random.IntN(3), Life: 1, Call: s.now, Return: s.now + 4*ms, Outcome: history.Acknowledged, Succeeded: true}
	write.Changes = []history.Change{{Key: s.key(), Value: fmt.Sprint("v", s.value)}}
	switch s.random.IntN(6) {
	case 0:
		write.Changes[0] = history.Change{Key: write.Changes[0].Key, Delete: true}
	case 1:
		write.Changes = append(write.Changes, history.Change{Key: "k/9", Value: fmt.Sprint("w", s.value)})
	case 2:
		write.If = &history.Compare{Key: write.Changes[0].Key, Mod: s.state[write.Changes[0].Key].Mod}
		if s.random.IntN(2) == 0 {
			write.If.Mod, write.Succeeded = 5, false
		}
	}
	if write.Succeeded {
		write.Deleted = s.apply(write.Changes, s.now+2*ms)
	}
	write.Revision = s.at
	switch s.random.IntN(5) {
	case 0:
		write.Outcome, write.Return, write.Revision, write.Deleted = history.Unknown, history.Never, 0, 0
	case 1:
		if !write.Changed() { // that which did nothing may as well have been refused
			write.Outcome = history.Refused
		}
	}
	s.record.Writes = append(s.record.Writes, write)
	s.now += 5 * ms
}

// apply makes changes happen at one revision.
func (s *sound) apply(changes []history.Change, at time.Duration) (deleted int64) {
	var events []history.Event
	for _, change := range changes {
		before, was := s.state[change.Key]
		event := history.Event{Delete: change.Delete, KV: history.KV{Key: change.Key, Mod: s.at + 1}}
		if was {
			event.Previous = &before
		}
		if change.Delete {
			if !was {
				continue
			}
			deleted++
			delete(s.state, change.Key)
		} else {
			event.KV.Value, event.KV.LeaseID = change.Value, change.LeaseID
			event.KV.Create, event.KV.Version = s.at+1, 1
			if was {
				event.KV.Create, event.KV.Version = before.Create, before.Version+1
			}
			s.state[change.Key] = event.KV
		}
		events = append(events, event)
	}
	if len(events) > 0 {
		s.at++
	}
	for _, event := range events {
		s.record.Events = append(s.record.Events, history.Told{At: at, Event: event})
	}
	return deleted
}

func (s *sound) read() {
	read := &history.Read{Member: s.random.IntN(3), Life: 1, Call: s.now, Return: s.now + ms, Key: "k/", End: "k0", Revision: s.at, Serializable: s.random.IntN(2) == 0}
	for n := range 10 {
		if kv, is := s.state[fmt.Sprintf("k/%d", n)]; is {
			read.KVs = append(read.KVs, kv)
		}
	}
	read.Count = int64(len(read.KVs))
	s.record.Reads = append(s.record.Reads, read)
	s.now += 2 * ms
}

// lease is granted, renewed once, and ends by itself or is revoked.
func (s *sound) lease(id int64, revoke bool) {
	lease := &history.Lease{ID: id, Key: fmt.Sprintf("l/%d", id), TTL: 2, Granted: s.now, Attached: true}
	put := &history.Write{Call: s.now, Return: s.now + 3*ms, Outcome: history.Acknowledged, Succeeded: true}
	put.Changes = []history.Change{{Key: lease.Key, Value: lease.Key, LeaseID: id}}
	s.apply(put.Changes, s.now+ms)
	put.Revision = s.at
	s.record.Writes = append(s.record.Writes, put)
	s.now += 500 * ms
	lease.Renewals = []history.Renewal{{Send: s.now, Answer: s.now + ms, TTL: 2}}
	s.now += 5 * ms
	if revoke {
		lease.Revoked = s.now
	} else {
		s.now += 2100 * ms
	}
	s.apply([]history.Change{{Key: lease.Key, Delete: true}}, s.now+ms)
	s.now += 5 * ms
	s.record.Leases = append(s.record.Leases, lease)
}

// watch hears all, and resumes behind `resumed` if that is not 0.
func (s *sound) watch(name, key, end string, resumed int64) {
	watch := &history.Watch{Name: name, Key: key, End: end, Previous: true, Awaited: true, Segments: []history.Segment{{Start: 11}}}
	for _, told := range s.record.Events {
		if !history.Within(told.KV.Key, key, end) {
			continue
		}
		segment := &watch.Segments[len(watch.Segments)-1]
		if resumed != 0 && told.KV.Mod > resumed && segment.Start == 11 {
			segment.Responses = append(segment.Responses, history.Response{Revision: resumed, Progress: true})
			watch.Segments = append(watch.Segments, history.Segment{Start: resumed + 1})
			segment = &watch.Segments[len(watch.Segments)-1]
		}
		if last := len(segment.Responses) - 1; last >= 0 && segment.Responses[last].Revision == told.KV.Mod && !segment.Responses[last].Progress {
			segment.Responses[last].Events = append(segment.Responses[last].Events, told.Event)
			continue
		}
		segment.Responses = append(segment.Responses, history.Response{Revision: told.KV.Mod, Events: []history.Event{told.Event}})
	}
	s.record.Watches = append(s.record.Watches, watch)
}

// TestSoundHistoriesPass: a check that finds fault with what is right is no check.
func TestSoundHistoriesPass(t *testing.T) {
	for seed := range uint64(300) {
		record := newSound(seed)
		if found := append(All(record), LeasesEnded(record, history.State{})...); len(found) > 0 {
			t.Fatalf("seed %d: %v", seed, found)
		}
	}
}

// TestPlantedViolationsAreFound plants one fault a time, and each must be found by the check and with the words that are for it.
func TestPlantedViolationsAreFound(t *testing.T) {
	for _, planted := range plantedFaults {
		t.Run(planted.name, func(t *testing.T) {
			tried := 0
			for seed := range uint64(40) {
				record := newSound(seed)
				if !planted.plant(record) {
					continue // this history has no place for it
				}
				tried++
				var all []string
				for _, violation := range append(All(record), LeasesEnded(record, finalState(record))...) {
					all = append(all, violation.String())
				}
				if !strings.Contains(strings.Join(all, "\n"), planted.want) {
					t.Fatalf("seed %d: nothing says %q: %v", seed, planted.want, all)
				}
			}
			if tried == 0 {
				t.Fatal("no history had a place for it")
			}
		})
	}
}

func finalState(record *history.Record) history.State {
	line := history.NewTimeline(record)
	walk := line.Walk()
	walk.To(line.Last)
	return walk.State
}
