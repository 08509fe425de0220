package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Pause stops the process where it stands, and returns when it does: after the signal was sent its threads still run until each
// of them has seen it. Resume lets it go on.
func (s *Server) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	deadline := time.Now().Add(stopTimeout)
	for {
		running, err := runningThreads(s.process.Process.Pid)
		if err != nil {
			s.t.Fatalf("pausing %s: %v", s.Kind, err)
		}
		if len(running) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s still runs %v after it was to stop: threads %v", s.Kind, stopTimeout, running)
		}
		time.Sleep(time.Millisecond)
	}
}

// Resume lets a paused process go on.
func (s *Server) Resume() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
}

// runningThreads are those of a process that no signal has stopped.
func runningThreads(pid int) ([]string, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return nil, fmt.Errorf("no threads of process %d: %v", pid, err)
	}
	var running []string
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if os.IsNotExist(err) || err == nil && len(stat) == 0 {
			continue // It ended meanwhile.
		}
		if err != nil {
			return nil, err
		}
		// The name before it may hold anything, a bracket too.
		_, rest, found := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
		if !found || len(rest) == 0 {
			return nil, fmt.Errorf("%s holds %q", path, stat)
		}
		if state := rest[0]; state != 'T' && state != 't' && state != 'Z' && state != 'X' {
			running = append(running, filepath.Base(filepath.Dir(path)))
		}
	}
	return running, nil
}
