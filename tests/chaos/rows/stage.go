// Package rows is the acceptance table of faults: each row is done to real members under load, its figures are measured, and what
// clients saw is judged. What cannot be done here names the test that does it.
package rows

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"basalt/tests/chaos/campaign"
	"basalt/tests/chaos/history"
	"basalt/tests/chaos/load"
	"basalt/tests/chaos/nemesis"
	"basalt/tests/chaos/rig"
)

// Options of the table.
type Options struct {
	Rig  rig.Options
	Load load.Options
	// Full is the sizes that the rows name.
	Full bool
	// Quick is small sizes, and times are shown and not judged.
	Quick bool
	Dumps string
	// Newer is the build that a rolling upgrade ends with; none restarts the same one.
	Newer string
	Say   func(format string, args ...any)
}

// Row of the table.
type Row struct {
	Number int
	Fault  string
	Bar    string
	// Elsewhere names where it is tried, if not here.
	Elsewhere string
	Run       func(*Stage) error
	// Quick says that it belongs to the quick form.
	Quick bool
}

// Stage is where one row is played.
type Stage struct {
	context.Context
	Options Options
	Number  int

	cluster  *rig.Cluster
	load     *load.Load
	totals   campaign.Totals
	done     []string
	measured []string
	broken   []string
}

// Did tells what was done.
func (s *Stage) Did(format string, args ...any) {
	s.done = append(s.done, fmt.Sprintf(format, args...))
	s.Options.Say("row %d: %s", s.Number, s.done[len(s.done)-1])
}

// Measured tells a figure that no bar is set for.
func (s *Stage) Measured(format string, args ...any) { s.Require(true, format, args...) }

// Require tells a figure, and that the row is not held unless `held`.
func (s *Stage) Require(held bool, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !held {
		text += " (!)"
		s.broken = append(s.broken, text)
	}
	s.measured = append(s.measured, text)
	s.Options.Say("row %d:   %s", s.Number, text)
}

// RequireTime is Require for figures that a busy machine changes, elections among them: the quick form only shows them.
func (s *Stage) RequireTime(held bool, format string, args ...any) {
	s.Require(held || s.Options.Quick, format, args...)
}

// size chooses by the form of the table.
func size[T any](s *Stage, quick, usual, full T) T {
	switch {
	case s.Options.Quick:
		return quick
	case s.Options.Full:
		return full
	default:
		return usual
	}
}

// begin starts a cluster and a load on it; `change` may change both before.
func (s *Stage) begin(change func(*rig.Options, *load.Options)) error {
	machines, clients := s.Options.Rig, s.Options.Load
	clients.Seed += uint64(s.Number)
	if change != nil {
		change(&machines, &clients)
	}
	var err error
	if s.cluster, err = rig.Start(machines); err != nil {
		return err
	}
	if _, err := s.cluster.Leader(); err != nil {
		return err
	}
	if clients.Rate == 0 {
		return nil
	}
	s.load, err = load.Start(s.cluster, clients)
	return err
}

// judge heals everything, ends the load and judges it.
func (s *Stage) judge() error {
	if err := nemesis.Heal(s.cluster); err != nil {
		return fmt.Errorf("healing: %w", err)
	}
	if err := nemesis.Disarm(s, s.cluster); err != nil {
		return err
	}
	say := func(format string, args ...any) {
		s.Options.Say("row %d: "+format, append([]any{s.Number}, args...)...)
	}
	return campaign.Judge(s.load, s.Options.Dumps, fmt.Sprintf("seed-%d-row-%d", s.load.Record().Seed, s.Number), say, &s.totals)
}

func (s *Stage) close() {
	if s.load != nil {
		s.load.Abandon()
	}
	if s.cluster != nil {
		s.cluster.Close()
	}
	s.load, s.cluster = nil, nil
}

// wait lets time pass.
func (s *Stage) wait(length time.Duration) error {
	select {
	case <-s.Done():
		return s.Err()
	case <-time.After(length):
		return nil
	}
}

// until waits for something, and returns after how long it came.
func (s *Stage) until(what string, limit time.Duration, come func() bool) (time.Duration, error) {
	began := time.Now()
	for !come() {
		if time.Since(began) > limit {
			return limit, fmt.Errorf("%s has not come within %v", what, limit)
		}
		if err := s.wait(5 * time.Millisecond); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// Result of a row.
type Result struct {
	Row            Row
	Done, Measured string
	Held           string
	Err            error
}

// Play plays one row to its end.
func Play(ctx context.Context, row Row, options Options) Result {
	if row.Run == nil {
		return Result{Row: row, Done: row.Elsewhere, Held: "elsewhere"}
	}
	stage := &Stage{Context: ctx, Options: options, Number: row.Number}
	defer stage.close()
	err := row.Run(stage)
	result := Result{Row: row, Done: strings.Join(stage.done, "; "), Measured: strings.Join(stage.measured, "; "), Held: "yes"}
	if stage.totals.Rounds > 0 {
		result.Measured += fmt.Sprintf("; history of %d writes, %d reads, %d events good", stage.totals.Writes, stage.totals.Reads, stage.totals.Events)
	}
	if err != nil {
		if stage.cluster != nil {
			err = fmt.Errorf("%w\n%s", err, stage.cluster.Tails())
		}
		result.Held, result.Err = "NO", err
	} else if len(stage.broken) > 0 {
		result.Held, result.Err = "NO", errors.New(strings.Join(stage.broken, "; "))
	}
	return result
}

// Table is the results as lines that can be read and pasted.
func Table(results []Result) string {
	var text strings.Builder
	text.WriteString("| row | fault | what was done | bar | measured | held |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, result := range results {
		measured := result.Measured
		if result.Err != nil && measured == "" {
			measured, _, _ = strings.Cut(result.Err.Error(), "\n")
		}
		fmt.Fprintf(&text, "| %d | %s | %s | %s | %s | %s |\n", result.Row.Number, result.Row.Fault, result.Done, result.Row.Bar, measured, result.Held)
	}
	return text.String()
}

// written are the writes called within a time through any of these members.
func written(record history.Record, from, to time.Duration, members ...*rig.Member) []*history.Write {
	var found []*history.Write
	for _, write := range record.Writes {
		if write.Call < from || write.Call >= to {
			continue
		}
		for _, member := range members {
			if write.Member == member.Number {
				found = append(found, write)
				break
			}
		}
	}
	return found
}
