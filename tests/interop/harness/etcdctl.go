package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// toolTimeout bounds one run of a tool.
var toolTimeout = 60 * time.Second

// SetToolTimeout gives the tools of one long test more time.
func SetToolTimeout(t testing.TB, timeout time.Duration) {
	before := toolTimeout
	toolTimeout = timeout
	t.Cleanup(func() { toolTimeout = before })
}

// Result of a tool that has ended.
type Result struct {
	Stdout, Stderr string
	Code           int
	// PeakMemory is the most memory in bytes that a tool was seen with.
	PeakMemory int64
}

// Etcdctl runs the genuine etcdctl against the server and returns its standard output; it must succeed.
func (s *Server) Etcdctl(args ...string) string {
	s.t.Helper()
	return s.EtcdctlIn("", args...)
}

// EtcdctlIn is Etcdctl with standard input.
func (s *Server) EtcdctlIn(stdin string, args ...string) string {
	s.t.Helper()
	result := s.EtcdctlResult(stdin, args...)
	if result.Code != 0 {
		s.t.Fatalf("etcdctl %v: exit %d\n%s%s", args, result.Code, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// EtcdctlResult runs etcdctl, whatever its outcome.
func (s *Server) EtcdctlResult(stdin string, args ...string) Result {
	s.t.Helper()
	result := run(s.t, stdin, ToolPath(s.t, "etcdctl"), append(s.etcdctlFlags(), args...)...)
	if result.Code == 0 {
		lineDone("etcdctl", args)
	}
	return result
}

// Etcdutl runs the genuine etcdutl, which must succeed.
func Etcdutl(t testing.TB, args ...string) string {
	t.Helper()
	return etcdutl(t, "etcdutl", args)
}

// EtcdutlBefore runs the genuine etcdutl of the release before, which must succeed.
func EtcdutlBefore(t testing.TB, args ...string) string {
	t.Helper()
	return etcdutl(t, "etcdutl-3.6", args)
}

// EtcdutlResult runs the genuine etcdutl, whatever its outcome.
func EtcdutlResult(t testing.TB, args ...string) Result {
	t.Helper()
	return run(t, "", ToolPath(t, "etcdutl"), args...)
}

func etcdutl(t testing.TB, name string, args []string) string {
	t.Helper()
	result := run(t, "", ToolPath(t, name), args...)
	if result.Code != 0 {
		t.Fatalf("%s %v: exit %d\n%s%s", name, args, result.Code, result.Stdout, result.Stderr)
	}
	lineDone(name, args)
	return result.Stdout
}

// commandTimeout of etcdctl: a third of what it may take in all.
func commandTimeout() time.Duration { return toolTimeout / 3 }

func (s *Server) etcdctlFlags() []string {
	flags := []string{"--endpoints=" + s.Endpoint(), "--command-timeout=" + commandTimeout().String(), "--dial-timeout=10s"}
	if s.tls != nil {
		flags = append(flags, "--cacert="+s.tls.Authority, "--cert="+s.tls.ClientCert, "--key="+s.tls.ClientKey)
	}
	return flags
}

func run(t testing.TB, stdin, path string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := command.Start()
	var peak func() int64
	if err == nil {
		peak = watchPeakMemory(command.Process.Pid)
		err = command.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v", path, args, err)
	}
	return Result{stdout.String(), stderr.String(), command.ProcessState.ExitCode(), peak()}
}

// Session is a tool that goes on, such as `etcdctl watch`.
type Session struct {
	t       testing.TB
	name    string
	args    []string
	lines   chan string
	stdin   io.WriteCloser
	process *os.Process
	printed bool
}

// EtcdctlSession starts etcdctl and hands out its standard output line by line until the test ends.
func (s *Server) EtcdctlSession(args ...string) *Session {
	s.t.Helper()
	command := exec.Command(ToolPath(s.t, "etcdctl"), append(s.etcdctlFlags(), args...)...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := command.StdinPipe() // kept open: some commands end with their input
	if err != nil {
		s.t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := startOnLastingThread(command); err != nil {
		s.t.Fatalf("etcdctl %v: %v", args, err)
	}
	session := &Session{
		t: s.t, name: strings.Join(args, " "), args: args, lines: make(chan string, 1024), stdin: stdin, process: command.Process,
	}
	read := make(chan struct{})
	go session.read(stdout, read)
	s.t.Cleanup(func() {
		stdin.Close()
		_ = command.Process.Kill()
		<-read
		_ = command.Wait()
	})
	return session
}

func (s *Session) read(output io.Reader, done chan<- struct{}) {
	defer close(done)
	defer close(s.lines)
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		s.lines <- scanner.Text()
	}
}

// Expect reads one line per wanted one and fails at the first that differs.
func (s *Session) Expect(wanted ...string) {
	s.t.Helper()
	for _, want := range wanted {
		if got := s.Next(); got != want {
			s.t.Fatalf("etcdctl %s: line %q, want %q", s.name, got, want)
		}
	}
}

// Next is the next line.
func (s *Session) Next() string {
	s.t.Helper()
	select {
	case line, ok := <-s.lines:
		if !ok {
			s.t.Fatalf("etcdctl %s has ended", s.name)
		}
		if !s.printed {
			s.printed = true
			lineDone("etcdctl", s.args)
		}
		return line
	case <-time.After(toolTimeout):
		s.t.Fatalf("etcdctl %s printed nothing for %v", s.name, toolTimeout)
	}
	return ""
}

// Type writes to its standard input.
func (s *Session) Type(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.stdin, text); err != nil {
		s.t.Fatalf("etcdctl %s reads no more: %v", s.name, err)
	}
}

// Interrupt is a Ctrl-C.
func (s *Session) Interrupt() {
	s.t.Helper()
	if err := s.process.Signal(os.Interrupt); err != nil {
		s.t.Fatalf("etcdctl %s: %v", s.name, err)
	}
}

// Rest are the lines up to its end, which must come.
func (s *Session) Rest() (lines []string) {
	s.t.Helper()
	deadline := time.After(toolTimeout)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				return lines
			}
			lines = append(lines, line)
		case <-deadline:
			s.t.Fatalf("etcdctl %s has not ended within %v: %q", s.name, toolTimeout, lines)
		}
	}
}
