package harness

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// refusalTimeout bounds a start that must not succeed.
const refusalTimeout = 60 * time.Second

// Launch is a start by hand, with a command line of the test's own.
type Launch struct {
	// Kind of program; empty means the one under test.
	Kind Kind
	Args []string
	// WorkDir is the working directory; empty means a fresh one.
	WorkDir string
	// Env is added to the environment of the test.
	Env []string
}

// RunToEnd runs a program that must end by itself, and returns how.
func RunToEnd(t testing.TB, launch Launch) Result {
	t.Helper()
	kind := launch.Kind
	if kind == "" {
		kind = UnderTest(t)
	}
	workDir := launch.WorkDir
	if workDir == "" {
		workDir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(context.Background(), refusalTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, Binary(t, kind), launch.Args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	command.Dir, command.Env = workDir, append(os.Environ(), launch.Env...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startOnLastingThread(command); err != nil {
		t.Fatalf("start %s: %v", kind, err)
	}
	_ = command.Wait()
	if ctx.Err() != nil {
		t.Fatalf("%s %q has not ended within %v:\n%s%s", kind, launch.Args, refusalTimeout, &stdout, &stderr)
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: command.ProcessState.ExitCode()}
}

// KillAt runs a program and kills it as soon as a file of the pattern is there, or returns when it has ended before.
func KillAt(t testing.TB, launch Launch, pattern string) {
	t.Helper()
	command := exec.Command(Binary(t, Basalt), launch.Args...)
	command.Dir = t.TempDir()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startOnLastingThread(command); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait()
	}()
	defer func() {
		_ = command.Process.Kill()
		<-ended
	}()
	deadline, tick := time.After(refusalTimeout), time.NewTicker(200*time.Microsecond)
	defer tick.Stop()
	for {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			return
		}
		select {
		case <-ended:
			return
		case <-deadline:
			t.Fatalf("%s has not come within %v", pattern, refusalTimeout)
		case <-tick.C:
		}
	}
}

// RefusedRestart runs the server's command line again, which must end by itself.
func (s *Server) RefusedRestart() Result {
	s.t.Helper()
	if s.Running() {
		s.t.Fatalf("%s %d still runs", s.Kind, s.process.Process.Pid)
	}
	return RunToEnd(s.t, Launch{Kind: s.Kind, Args: s.args()})
}

// AwaitExit waits until the process has ended by itself, and returns its exit code.
func (s *Server) AwaitExit() int {
	s.t.Helper()
	_ = s.awaitExit()
	return s.process.ProcessState.ExitCode()
}

// LastLine is the newest line that the server has printed.
func (s *Server) LastLine() string { return s.log.lastLine() }
