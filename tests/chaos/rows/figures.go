package rows

import (
	"slices"
	"sync"
	"time"

	"basalt/tests/chaos/history"
	"basalt/tests/chaos/rig"
)

// latencies of the acknowledged ones.
func latencies(writes []*history.Write) []time.Duration {
	var all []time.Duration
	for _, write := range writes {
		if write.Outcome == history.Acknowledged {
			all = append(all, write.Return-write.Call)
		}
	}
	return all
}

// unanswered counts those without an acknowledgement.
func unanswered(writes []*history.Write) int {
	count := 0
	for _, write := range writes {
		if write.Outcome != history.Acknowledged {
			count++
		}
	}
	return count
}

// resumed is how long after `since` the last of these members answered its first write called after `since`; false if one has not yet.
func resumed(record history.Record, since time.Duration, members ...*rig.Member) (time.Duration, bool) {
	var last time.Duration
	for _, member := range members {
		first := history.Never
		for _, write := range record.Writes {
			if write.Member == member.Number && write.Call >= since && write.Outcome == history.Acknowledged {
				first = min(first, write.Return)
			}
		}
		if first == history.Never {
			return 0, false
		}
		last = max(last, first-since)
	}
	return last, true
}

// gap is the longest time within [from, to] in which none of these members acknowledged a write.
func gap(record history.Record, from, to time.Duration, members ...*rig.Member) time.Duration {
	times := []time.Duration{from, to}
	for _, write := range record.Writes {
		if write.Outcome != history.Acknowledged || write.Return < from || write.Return > to {
			continue
		}
		for _, member := range members {
			if write.Member == member.Number {
				times = append(times, write.Return)
				break
			}
		}
	}
	slices.Sort(times)
	var longest time.Duration
	for n := range times[1:] {
		longest = max(longest, times[n+1]-times[n])
	}
	return longest
}

// leaderships looks all the time who leads in which term.
type leaderships struct {
	stop chan struct{}
	done sync.WaitGroup

	mutex sync.Mutex
	first uint64 // term at the beginning
	last  uint64
	led   map[uint64]bool // terms in which somebody was seen to lead
}

func watchLeaderships(cluster *rig.Cluster) *leaderships {
	seen := &leaderships{stop: make(chan struct{}), led: map[uint64]bool{}}
	for _, member := range cluster.Members() {
		seen.done.Add(1)
		go func() {
			defer seen.done.Done()
			for {
				if status, err := member.Status(300 * time.Millisecond); err == nil {
					seen.mutex.Lock()
					if seen.first == 0 {
						seen.first = status.RaftTerm
					}
					seen.last = max(seen.last, status.RaftTerm)
					if status.Leader != 0 {
						seen.led[status.RaftTerm] = true
					}
					seen.mutex.Unlock()
				}
				select {
				case <-seen.stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		}()
	}
	return seen
}

// changes ends the watch: how many new leaders there were, and how many terms.
func (l *leaderships) changes() (leaders, terms int) {
	close(l.stop)
	l.done.Wait()
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for term := range l.led {
		if term > l.first {
			leaders++
		}
	}
	return leaders, int(l.last - l.first)
}

// rounded for people.
func rounded(length time.Duration) string { return length.Round(time.Millisecond).String() }

func mebibytes(bytes int64) int64 { return bytes >> 20 }
