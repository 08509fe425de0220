package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// readyLine is the only readiness signal of etcd, and ours.
	readyLine = "ready to serve client requests"
	// readyTimeout bounds a start; it is wide because the machine may be busy.
	readyTimeout = 90 * time.Second
	// exitTimeout bounds an end that was asked for.
	exitTimeout = 40 * time.Second
)

// process is one life of a member.
type process struct {
	command *exec.Cmd
	log     string
	// said is how much earlier lives have written to the log.
	said   int64
	exited chan struct{}
}

// spawn carries process starts to one goroutine that keeps its thread for ever: the kernel sends the parent-death signal when
// the thread that forked ends.
var spawn = sync.OnceValue(func() chan<- func() {
	starts := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
	return starts
})

func startOnLastingThread(command *exec.Cmd) error {
	result := make(chan error, 1)
	spawn() <- func() { result <- command.Start() }
	return <-result
}

// begin runs a command line with its output appended to a file.
func begin(line, env []string, log string) (*process, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	said, err := output.Seek(0, 2)
	if err != nil {
		return nil, err
	}
	command := exec.Command(line[0], line[1:]...)
	command.Stdout, command.Stderr, command.Env = output, output, append(os.Environ(), env...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startOnLastingThread(command); err != nil {
		return nil, err
	}
	begun := &process{command: command, log: log, said: said, exited: make(chan struct{})}
	go func() {
		defer close(begun.exited)
		_ = command.Wait()
	}()
	return begun, nil
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// output of this life.
func (p *process) output() string {
	text, err := os.ReadFile(p.log)
	if err != nil || int64(len(text)) < p.said {
		return ""
	}
	return string(text[p.said:])
}

func (p *process) lastLine() string {
	lines := strings.Split(strings.TrimSpace(p.output()), "\n")
	return lines[len(lines)-1]
}

func (p *process) awaitReady() error {
	for deadline := time.Now().Add(readyTimeout); ; time.Sleep(5 * time.Millisecond) {
		if strings.Contains(p.output(), readyLine) {
			return nil
		}
		if !p.running() {
			return fmt.Errorf("ended before it was ready: %s", p.lastLine())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready within %v: %s", readyTimeout, p.lastLine())
		}
	}
}

// ErrRuns says that a process has not ended by itself.
var ErrRuns = errors.New("the process still runs")

func (p *process) awaitExit(timeout time.Duration) error {
	select {
	case <-p.exited:
		return nil
	case <-time.After(timeout):
		return ErrRuns
	}
}

func (p *process) signal(signal syscall.Signal) error {
	return p.command.Process.Signal(signal)
}
