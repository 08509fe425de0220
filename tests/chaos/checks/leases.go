package checks

import (
	"time"

	"basalt/tests/chaos/history"
)

// Leases checks that none ended early: its key goes no sooner than its TTL after the call of the last renewal that was answered, unless its
// owner revoked it. That one ends in time at all shows at the end, when no abandoned one may be left: see [LeasesEnded].
func Leases(record *history.Record) []Violation {
	found := findings{check: "leases"}
	gone := map[string]time.Duration{}
	for _, event := range record.Events {
		if event.Delete {
			gone[event.KV.Key] = event.At
		}
	}
	for _, lease := range record.Leases {
		entitled := entitledUntil(lease)
		if at, is := gone[lease.Key]; is && lease.Revoked == 0 && at < entitled {
			found.add("%d ended at %v, and was entitled to live until %v: %+v", lease.ID, at, entitled, *lease)
		}
		if lease.Lost != 0 && lease.Revoked == 0 && lease.Lost < entitled {
			found.add("%d was said to have ended at %v, and was entitled to live until %v: %+v", lease.ID, lease.Lost, entitled, *lease)
		}
	}
	return found.found
}

// entitledUntil is the earliest time at which it may end by itself.
func entitledUntil(lease *history.Lease) time.Duration {
	until := lease.Granted + time.Duration(lease.TTL)*time.Second
	for _, renewal := range lease.Renewals {
		until = max(until, renewal.Send+time.Duration(renewal.TTL)*time.Second)
	}
	return until
}

// LeasesEnded checks that the key of no lease is left at the end. The record must have waited long enough.
func LeasesEnded(record *history.Record, final history.State) []Violation {
	found := findings{check: "leases"}
	for _, lease := range record.Leases {
		if kv, is := final[lease.Key]; is && kv.LeaseID == lease.ID {
			found.add("%d never ended: %+v", lease.ID, *lease)
		}
	}
	return found.found
}

// Lateness is how long after its time the last lease that nobody revoked was gone, of those that were to end at or after `from`.
func Lateness(record *history.Record, from time.Duration) time.Duration {
	gone := map[string]time.Duration{}
	for _, event := range record.Events {
		if event.Delete {
			gone[event.KV.Key] = event.At
		}
	}
	var latest time.Duration
	for _, lease := range record.Leases {
		until := lease.Granted + time.Duration(lease.TTL)*time.Second
		for _, renewal := range lease.Renewals {
			until = max(until, renewal.Answer+time.Duration(renewal.TTL)*time.Second)
		}
		if at, is := gone[lease.Key]; is && lease.Revoked == 0 && until >= from {
			latest = max(latest, at-until)
		}
	}
	return latest
}
