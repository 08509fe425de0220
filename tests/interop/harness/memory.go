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
