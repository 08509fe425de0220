package rig

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Inject lets strace change what a running process is answered, as "fdatasync:delay_enter=200000" (µs) or
// "fdatasync:error=EIO:when=1", until the function that it returns is called. That one is to be called also when the process has
// ended.
func (m *Member) Inject(what string) (stop func(), err error) {
	calls, _, _ := strings.Cut(what, ":")
	said, err := os.CreateTemp(m.cluster.folder, m.Name+".strace")
	if err != nil {
		return nil, err
	}
	defer said.Close()
	command := exec.Command("strace", "-f", "-o", os.DevNull, "-e", "trace="+calls, "-e", "inject="+what, "-p", fmt.Sprint(m.Pid()))
	command.Stderr = said
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := startOnLastingThread(command); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	stop = func() {
		_ = command.Process.Signal(syscall.SIGTERM) // it lets the process go
		<-ended
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(said.Name())
		if err != nil {
			stop()
			return nil, err
		}
		if strings.Contains(string(text), "attached") {
			return stop, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("strace of %s ended: %s", m, text)
		default:
		}
		if time.Now().After(deadline) {
			stop()
			return nil, fmt.Errorf("strace has not attached to %s: %s", m, text)
		}
	}
}
