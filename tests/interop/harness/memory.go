package harness

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// PeakMemory is the most memory in bytes that the process has had since ForgetPeakMemory, or since it began.
func (s *Server) PeakMemory() int64 { return s.memory("VmHWM") }

// Memory is what the process has now, in bytes.
func (s *Server) Memory() int64 { return s.memory("VmRSS") }

// LockedMemory is what may not be swapped out, in bytes.
func (s *Server) LockedMemory() int64 { return s.memory("VmLck") }

// ForgetPeakMemory makes the present the peak.
func (s *Server) ForgetPeakMemory() {
	s.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.process.Process.Pid), []byte("5"), 0o200); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) memory(field string) int64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return kibibytes(string(text), field)
}

// watchPeakMemory looks at a process until the answer is asked for. What the system counts for a child that has ended holds
// the memory of the process that started it.
func watchPeakMemory(pid int) (peak func() int64) {
	stop, seen := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for newest := int64(0); ; {
			if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
				newest = max(newest, kibibytes(string(text), "VmHWM"))
			}
			select {
			case <-tick.C:
			case <-stop:
				seen <- newest
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-seen
	}
}

// kibibytes reads a field of a process's status, in bytes; 0 if it is not there.
func kibibytes(status, field string) int64 {
	_, rest, _ := strings.Cut(status, field+":")
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
}

// clockTick is the unit of the times in /proc/PID/stat on every architecture that the servers run on (proc(5)).
const clockTick = 10 * time.Millisecond

// CPU is the time that the process has computed, in user and system mode, with all its threads.
func (s *Server) CPU() time.Duration {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	// The name, field 2, stands in parentheses and may hold anything; fields 14 and 15 are the times.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var user, system time.Duration
	if len(fields) > 12 {
		if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
			s.t.Fatal(err)
		}
	}
	return (user + system) * clockTick
}
