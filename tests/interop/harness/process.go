package harness

import (
	"bytes"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// outputBytesMax bounds what is kept of a server's output; a failed test prints the last tailLines of it, each clipped
// to tailLineBytes.
const (
	outputBytesMax = 8 << 20
	tailLines      = 30
	tailLineBytes  = 400
)

// outputLog keeps the newest output of a process over all its lives and tells when it has said a certain line.
type outputLog struct {
	mutex sync.Mutex
	text  []byte
	// written counts all bytes, also those that are not kept.
	written   int64
	wanted    []byte
	searched  int
	readyOnce chan struct{}
}

func newOutputLog(wanted string) *outputLog { return &outputLog{wanted: []byte(wanted)} }

// expectReady starts a new life: what was said before counts no more.
func (l *outputLog) expectReady() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.searched = len(l.text)
	l.readyOnce = make(chan struct{})
}

func (l *outputLog) ready() <-chan struct{} {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.readyOnce
}

func (l *outputLog) Write(output []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.text = append(l.text, output...)
	l.written += int64(len(output))
	if l.searched >= 0 && bytes.Contains(l.text[l.searched:], l.wanted) {
		l.searched = -1
		close(l.readyOnce)
	}
	if surplus := len(l.text) - outputBytesMax; surplus > 0 {
		l.text = l.text[surplus:]
		if l.searched >= 0 {
			l.searched = max(0, l.searched-surplus)
		}
	}
	return len(output), nil
}

func (l *outputLog) bytes() int64 {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.written
}

func (l *outputLog) contains(text string) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return bytes.Contains(l.text, []byte(text))
}

func (l *outputLog) linesWith(text string) []string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	var lines []string
	for line := range strings.Lines(string(l.text)) {
		if strings.Contains(line, text) {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return lines
}

func (l *outputLog) lastLine() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	text := bytes.TrimRight(l.text, "\n")
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}

func (l *outputLog) tail() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	lines := strings.Split(strings.TrimSpace(string(l.text)), "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	for i, line := range lines {
		lines[i] = line[:min(len(line), tailLineBytes)]
	}
	return strings.Join(lines, "\n")
}

// spawn carries process starts to one goroutine that keeps its thread for ever: the kernel sends the parent-death
// signal when the *thread* that forked ends, and Go's threads come and go.
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

// Ports are taken below the range from which the kernel serves outgoing connections, so that none of those can sit on
// a server's port while it is down for a restart.
const (
	firstPort = 12_000
	lastPort  = 32_000
)

// portsGiven holds a locked file for each port of this process. A server is down between two of its lives, and the lock
// keeps its port from the servers of other test processes meanwhile.
var (
	portsMutex sync.Mutex
	portsGiven = map[int]*os.File{}
)

// FreePort is a loopback port that no other server of these tests has, in this process or another.
func FreePort(t testing.TB) int {
	t.Helper()
	portsMutex.Lock()
	defer portsMutex.Unlock()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		lock := lockPort(t, port)
		if lock == nil {
			continue
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			lock.Close()
			continue
		}
		listener.Close()
		portsGiven[port] = lock
		return port
	}
	t.Fatal("no free loopback port")
	return 0
}

// lockPort takes a port until this process ends; nil if it is taken.
func lockPort(t testing.TB, port int) *os.File {
	t.Helper()
	if portsGiven[port] != nil {
		return nil
	}
	dir := filepath.Join(os.TempDir(), "basalt-interop-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil // another user's
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil
	}
	return file
}
