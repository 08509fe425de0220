package rig

import (
	"fmt"
	"os"
	"path/filepath"
)

// fakeTime is where Debian puts the library that gives a process another wall clock.
const fakeTime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"

// clockEnv makes the wall clock of a process follow the member's clock file. Its monotonic clock stays the system's, as that of a
// machine does whose wall clock is set.
func (m *Member) clockEnv() []string {
	if !m.cluster.Options.Clocks {
		return nil
	}
	return []string{
		"LD_PRELOAD=" + fakeTime,
		"FAKETIME_TIMESTAMP_FILE=" + m.clockFile(),
		"FAKETIME_NO_CACHE=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1",
		"FAKETIME_DONT_RESET=1",
	}
}

func (m *Member) clockFile() string { return filepath.Join(m.cluster.folder, m.Name+".clock") }

// SetClock steps the wall clock of the process, now or later, to `offset` as in "+3600" seconds or "-3600", or lets it go fast
// or slow as in "+0 x1.1"; "+0" is right again. The cluster must have been made with Clocks.
func (m *Member) SetClock(offset string) error {
	if !m.cluster.Options.Clocks {
		return fmt.Errorf("the members of this cluster have the system's clock")
	}
	// Renamed into place: a reader never sees half of it.
	fresh := m.clockFile() + ".new"
	if err := os.WriteFile(fresh, []byte(offset+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, m.clockFile())
}
