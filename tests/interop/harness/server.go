// Package harness runs one server under test as a real process: genuine etcd or basalt, told apart only here.
//
// It gives each server free loopback ports and a directory of its own, waits for etcd's readiness line, kills, restarts
// and stops it, and prints its log when the test fails. It never touches a process that it did not start, and
// everything it waits for has a time limit.
package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Kind says which program serves.
type Kind string

const (
	Etcd   Kind = "etcd"
	Basalt Kind = "basalt"
)

const (
	// readyLine is the only readiness signal of etcd (etcd-contract section 5).
	readyLine = "ready to serve client requests"
	// startTimeout bounds a start; it is wide because the machine may be busy.
	startTimeout = 60 * time.Second
	// stopTimeout bounds a clean stop.
	stopTimeout = 30 * time.Second
)

// UnderTest is the server named by INTEROP_SERVER: `basalt` (the default) or `etcd`.
func UnderTest(t testing.TB) Kind {
	t.Helper()
	switch kind := os.Getenv("INTEROP_SERVER"); kind {
	case "", string(Basalt):
		return Basalt
	case string(Etcd):
		return Etcd
	default:
		t.Fatalf("INTEROP_SERVER is %q, want etcd or basalt", kind)
		return ""
	}
}

// Options of one server.
type Options struct {
	// Kind of program; empty means the one under test.
	Kind Kind
	// Program is that of another release; empty means the kind's own.
	Program string
	// DataDir of an earlier life or a restored snapshot; empty means a fresh one.
	DataDir string
	// Args are added after the harness's own flags, in etcd's words.
	Args []string
	// Config is added to a config file, in YAML, that holds the harness's own flags: with one, flags do not count.
	Config string
	// TLS makes the client listener speak TLS and ask for client certificates.
	TLS *Certificates
	// Line is a whole command line that takes the place of the harness's own flags; the server then serves clients at
	// Endpoint.
	Line     []string
	Endpoint string
	// WorkDir is the working directory; empty means that of the test.
	WorkDir string
	// Wrapper is a command line that runs the server's, which follows it; its process becomes the server's.
	Wrapper []string
}

// Server is one process with its ports and directory. They survive Kill and Restart.
type Server struct {
	Kind    Kind
	DataDir string

	t          testing.TB
	tls        *Certificates
	clientPort int
	peerPort   int
	// name and cluster are those of one of several members; empty for a cluster of one.
	name     string
	cluster  string
	extra    []string
	config   string
	line     []string
	endpoint string
	workDir  string
	// program is that of the next life, where it is not that of the test.
	program string
	wrapper []string
	process *exec.Cmd
	exited  chan error
	log     *outputLog
}

// Start runs a server and returns when it has said that it is ready.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	server := StartLater(t, options)
	server.awaitReady()
	return server
}

// StartLater runs a server without waiting for it.
func StartLater(t testing.TB, options Options) *Server {
	t.Helper()
	kind := options.Kind
	if kind == "" {
		kind = UnderTest(t)
	}
	dataDir := options.DataDir
	if dataDir == "" {
		dataDir = filepath.Join(t.TempDir(), "data")
	}
	server := &Server{
		Kind: kind, DataDir: dataDir,
		t: t, tls: options.TLS, clientPort: FreePort(t), peerPort: FreePort(t), extra: options.Args,
		line: options.Line, endpoint: options.Endpoint, workDir: options.WorkDir,
		wrapper: options.Wrapper, program: options.Program,
		log: newOutputLog(readyLine),
	}
	t.Cleanup(server.cleanup)
	if options.Config != "" {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(yamlOf(server.args())+options.Config), 0o600); err != nil {
			t.Fatal(err)
		}
		server.config = path
	}
	server.launch()
	return server
}

// yamlOf writes flags as keys of a config file.
func yamlOf(args []string) string {
	var text strings.Builder
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		fmt.Fprintf(&text, "%s: %q\n", name, value)
	}
	return text.String()
}

// StartUnderTest runs the server named by INTEROP_SERVER with extra flags.
func StartUnderTest(t testing.TB, args ...string) *Server {
	t.Helper()
	return Start(t, Options{Args: args})
}

// Scheme of the client listener.
func (s *Server) Scheme() string {
	if s.tls != nil {
		return "https"
	}
	return "http"
}

// Target is host and port of the client listener.
func (s *Server) Target() string {
	_, target, _ := strings.Cut(s.Endpoint(), "://")
	return target
}

// Endpoint is the client URL.
func (s *Server) Endpoint() string {
	if s.endpoint != "" {
		return s.endpoint
	}
	return fmt.Sprintf("%s://127.0.0.1:%d", s.Scheme(), s.clientPort)
}

// PeerURL is the member's peer URL, which a snapshot restored for it has to name.
func (s *Server) PeerURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.peerPort) }

// LogContains says whether the server has printed `text` in any of its lives.
func (s *Server) LogContains(text string) bool { return s.log.contains(text) }

// LogBytes is how much the server has written, over all its lives.
func (s *Server) LogBytes() int64 { return s.log.bytes() }

// LinesWith are the lines with `text` that the server has printed in all its lives.
func (s *Server) LinesWith(text string) []string { return s.log.linesWith(text) }

// Wrap sets the wrapper of the next life.
func (s *Server) Wrap(wrapper []string) { s.wrapper = wrapper }

// UseProgram sets the program of the next life.
func (s *Server) UseProgram(program string) { s.program = program }

// Running says whether the process lives.
func (s *Server) Running() bool {
	select {
	case err := <-s.exited:
		s.exited <- err
		return false
	default:
		return true
	}
}

// Kill ends the process with SIGKILL and returns when it is gone.
func (s *Server) Kill() {
	s.t.Helper()
	s.signal(syscall.SIGKILL)
	s.awaitExit()
}

// Restart runs the same command line again. The process must have ended.
func (s *Server) Restart() {
	s.t.Helper()
	if s.Running() {
		s.t.Fatalf("%s %d still runs", s.Kind, s.process.Process.Pid)
	}
	s.run()
}

// RestartLater begins the next life without waiting for it, as where several members need each other; AwaitReady waits.
func (s *Server) RestartLater() {
	s.t.Helper()
	s.launch()
}

// AwaitReady waits until a life that RestartLater began serves.
func (s *Server) AwaitReady() {
	s.t.Helper()
	s.awaitReady()
}

// Stop asks the process to end with SIGTERM and fails the test unless it ends cleanly: with status 0, or, as etcd does
// after its shutdown, by raising the same signal again.
func (s *Server) Stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	err := s.awaitExit()
	if err == nil {
		return
	}
	status, ok := s.process.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		s.t.Fatalf("%s did not end cleanly on SIGTERM: %v", s.Kind, err)
	}
}

func (s *Server) run() {
	s.t.Helper()
	s.launch()
	s.awaitReady()
}

// launch begins a life; awaitReady waits until it serves.
func (s *Server) launch() {
	s.t.Helper()
	s.log.expectReady()
	program := s.program
	if program == "" {
		program = Binary(s.t, s.Kind)
	}
	line := slices.Concat(s.wrapper, []string{program}, s.args())
	s.process = exec.Command(line[0], line[1:]...)
	s.process.Stdout, s.process.Stderr, s.process.Dir = s.log, s.log, s.workDir
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startOnLastingThread(s.process); err != nil {
		s.t.Fatalf("start %s: %v", s.Kind, err)
	}
	process, exited := s.process, make(chan error, 1)
	s.exited = exited
	go func() { exited <- process.Wait() }()
}

func (s *Server) awaitReady() {
	s.t.Helper()
	exited := s.exited
	select {
	case <-s.log.ready():
	case err := <-exited:
		exited <- err
		s.t.Fatalf("%s ended before it was ready: %v", s.Kind, err)
	case <-time.After(startTimeout):
		s.t.Fatalf("%s was not ready within %v", s.Kind, startTimeout)
	}
}

func (s *Server) args() []string {
	if s.config != "" {
		return []string{"--config-file=" + s.config}
	}
	if s.line != nil {
		return slices.Concat(s.line, s.extra)
	}
	name, cluster := "default", "default="+s.PeerURL()
	if s.cluster != "" {
		name, cluster = s.name, s.cluster
	}
	args := []string{
		"--name=" + name,
		"--data-dir=" + s.DataDir,
		"--listen-client-urls=" + s.Endpoint(),
		"--advertise-client-urls=" + s.Endpoint(),
		"--listen-peer-urls=" + s.PeerURL(),
		"--initial-advertise-peer-urls=" + s.PeerURL(),
		"--initial-cluster=" + cluster,
	}
	if s.tls != nil {
		args = append(args, "--cert-file="+s.tls.ServerCert, "--key-file="+s.tls.ServerKey,
			"--trusted-ca-file="+s.tls.Authority, "--client-cert-auth=true")
	}
	return slices.Concat(args, s.extra)
}

// Signal says something to the process.
func (s *Server) Signal(signal syscall.Signal) {
	s.t.Helper()
	s.signal(signal)
}

func (s *Server) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatalf("signal %v to %s: %v", signal, s.Kind, err)
	}
}

func (s *Server) awaitExit() error {
	s.t.Helper()
	select {
	case err := <-s.exited:
		s.exited <- err
		return err
	case <-time.After(stopTimeout):
		s.t.Fatalf("%s did not end within %v", s.Kind, stopTimeout)
		return nil
	}
}

func (s *Server) cleanup() {
	if s.process != nil && s.exited != nil && s.Running() {
		_ = s.process.Process.Kill()
		<-s.exited
	}
	if s.t.Failed() {
		s.t.Logf("last output of %s at %s:\n%s", s.Kind, s.Endpoint(), s.log.tail())
	}
}

// NextVersion is the build with what the next release could change and with failpoints, where BASALT_NEXT_BIN or the workspace's target has it.
func NextVersion(t testing.TB) string {
	t.Helper()
	path := os.Getenv("BASALT_NEXT_BIN")
	if path == "" {
		path = filepath.Join(targetDir(), "debug", "basalt-next")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no next version at %s: cargo build -p basalt-server --features next-version,failpoints, copied there, or set BASALT_NEXT_BIN", path)
	}
	return path
}

// Binary finds the program: etcd in bin/ (see build.sh), basalt where BASALT_BIN says or in the workspace's target.
func Binary(t testing.TB, kind Kind) string {
	t.Helper()
	if kind == Etcd {
		return ToolPath(t, "etcd")
	}
	path := os.Getenv("BASALT_BIN")
	if path == "" {
		path = filepath.Join(targetDir(), "debug", "basalt")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no basalt at %s: build it, or set BASALT_BIN, or set INTEROP_SERVER=etcd", path)
	}
	return path
}

// targetDir is Cargo's; a relative one is taken from the root of the workspace, where Cargo is run.
func targetDir() string {
	root, target := filepath.Join(moduleDir(), "..", ".."), os.Getenv("CARGO_TARGET_DIR")
	if filepath.IsAbs(target) {
		return target
	}
	if target == "" {
		target = "target"
	}
	return filepath.Join(root, target)
}

// ToolPath is where build.sh puts the genuine binaries.
func ToolPath(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(moduleDir(), "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no genuine %s: run tests/interop/build.sh", name)
	}
	return path
}

func moduleDir() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !strings.HasSuffix(file, "harness/server.go") {
		panic("the harness cannot find its own source file: do not build these tests with -trimpath")
	}
	return filepath.Dir(filepath.Dir(file))
}
