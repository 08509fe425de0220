package rows

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"basalt/tests/chaos/load"
	"basalt/tests/chaos/rig"
)

// wrongClocks is row 11.
func wrongClocks(s *Stage) error {
	if err := s.begin(func(machines *rig.Options, clients *load.Options) {
		machines.Clocks = true
		clients.Leases *= 2
	}); err != nil {
		return err
	}
	if err := s.wait(2 * time.Second); err != nil {
		return err
	}
	leader, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	follower := s.cluster.Others(leader)[0]
	seen := watchLeaderships(s.cluster)
	for _, offset := range []string{"+3600", "-3600", "+0 x1.1", "+0 x0.9", "+0"} {
		for _, member := range []*rig.Member{leader, follower} {
			if err := member.SetClock(offset); err != nil {
				return err
			}
			if err := s.wait(size(s, 1500*time.Millisecond, 6*time.Second, 60*time.Second)); err != nil {
				return err
			}
		}
	}
	leaders, _ := seen.changes()
	s.Did("wall clocks of the leader and a follower stepped by +1 h, -1 h, and run 10 %% fast and slow")
	s.RequireTime(leaders == 0, "%d leader changes", leaders)
	for offset, hours := range map[string]float64{"+3600": 1, "-3600": -1} {
		if err := follower.SetClock(offset); err != nil {
			return err
		}
		if err := follower.Terminate(); err != nil {
			return err
		}
		if err := follower.Start(); err != nil {
			return err
		}
		if err := follower.AwaitReady(); err != nil {
			return fmt.Errorf("a start with a clock that is wrong by %s s: %w", offset, err)
		}
		shown, err := newestLine(follower)
		if err != nil {
			return err
		}
		// That the rig can do it at all.
		if off := time.Until(shown).Hours(); off < hours-0.1 || off > hours+0.1 {
			return fmt.Errorf("the clock of %s was set to %s, and its log shows %v", follower, offset, shown)
		}
		if err := s.wait(2 * time.Second); err != nil {
			return err
		}
	}
	s.Did("a follower started with a clock that is wrong by an hour")
	return s.judge()
}

// newestLine is the time that the member wrote into its log last.
func newestLine(member *rig.Member) (time.Time, error) {
	text, err := os.ReadFile(member.LogFile())
	if err != nil {
		return time.Time{}, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var line struct {
		Time time.Time `json:"ts"`
	}
	err = json.Unmarshal([]byte(lines[len(lines)-1]), &line)
	return line.Time, err
}
