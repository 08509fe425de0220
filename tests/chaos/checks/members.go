package checks

import "basalt/tests/chaos/history"

// Members checks that all members have one hash at the last revision.
func Members(record *history.Record) []Violation {
	found := findings{check: "members"}
	different := map[uint32]bool{}
	for _, hash := range record.Hashes {
		different[hash] = true
	}
	if len(different) > 1 {
		found.add("members differ at revision %d: %v", record.Last, record.Hashes)
	}
	return found.found
}
