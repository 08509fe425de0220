// Package checks judges a history of clients. Each file is one promise; each finds what breaks it, and the tests plant a breach for
// every sentence that a check can say.
//
// Every answer carries the revision of the store, and every value is written once. So nothing is searched: writes are ordered by their
// revisions, a state is rebuilt once from first to last, and every answer is compared with the state at its revision.
package checks

import (
	"fmt"
	"slices"

	"basalt/tests/chaos/history"
)

// Violation is one broken promise.
type Violation struct {
	Check, Text string
}

func (v Violation) String() string { return v.Check + ": " + v.Text }

// perCheckMax is how many violations of a check are kept; the first ones say it all.
const perCheckMax = 10

// findings gathers what one check finds.
type findings struct {
	check string
	found []Violation
}

func (f *findings) add(format string, args ...any) {
	if len(f.found) < perCheckMax {
		f.found = append(f.found, Violation{f.check, fmt.Sprintf(format, args...)})
	}
}

// All runs every check.
func All(record *history.Record) []Violation {
	line := history.NewTimeline(record)
	return slices.Concat(
		Timeline(record, line), Writes(record, line), RealTime(record), Reads(record, line), Watches(record, line),
		Leases(record), Members(record),
	)
}
