package rig

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	clientPort = 2379
	peerPort   = 2380
	// messageBytesMax lets clients receive what a server may send.
	messageBytesMax = 1 << 30
)

// Member is one server with its namespace, disk and clock; they outlive its process.
type Member struct {
	// Number is never used again, also when the member is replaced.
	Number int
	Name   string
	// Address of the member in its cluster's network.
	Address string

	cluster    *Cluster
	namespace  string
	clientPort int
	peerPort   int
	disk       *disk
	proxy      *proxy
	process    *process
	lives      atomic.Int64
	binary     string
	joining    string // --initial-cluster of one that comes later
	conn       *grpc.ClientConn
}

func (m *Member) String() string { return m.Name }

// DataDir is empty before the first start.
func (m *Member) DataDir() string { return filepath.Join(m.disk.dir, "data") }

// logDir is the log's, if that lies apart.
func (m *Member) logDir() string { return filepath.Join(m.cluster.folder, m.Name+".wal") }

// ClientURL is where clients find it.
func (m *Member) ClientURL() string {
	return m.cluster.scheme() + "://" + net.JoinHostPort(m.Address, fmt.Sprint(m.clientPort))
}

// PeerURL is where the others find it.
func (m *Member) PeerURL() string {
	return m.cluster.scheme() + "://" + net.JoinHostPort(m.Address, fmt.Sprint(m.peerPort))
}

// advertised is what the others are told: of a proxied cluster, an address that is each one's own proxy.
func (m *Member) advertised() string {
	if !m.cluster.Options.Proxied {
		return m.PeerURL()
	}
	return m.cluster.scheme() + "://" + net.JoinHostPort(m.cluster.network.address(hostFirst+m.Number+proxyFirst), fmt.Sprint(m.peerPort))
}

// Conn is a raw gRPC connection that is made again when it breaks; calls do not wait for it and are never tried again.
func (m *Member) Conn() *grpc.ClientConn { return m.conn }

// Dial makes a further connection like Conn.
func (m *Member) Dial() (*grpc.ClientConn, error) {
	security := insecure.NewCredentials()
	if m.cluster.certificates != nil {
		security = credentials.NewTLS(m.cluster.certificates.client)
	}
	return grpc.NewClient("passthrough:///"+net.JoinHostPort(m.Address, fmt.Sprint(m.clientPort)),
		grpc.WithTransportCredentials(security), grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)))
}

func (m *Member) args() []string {
	options := &m.cluster.Options
	state, cluster := "new", m.cluster.initial
	if m.joining != "" {
		state, cluster = "existing", m.joining
	}
	args := []string{
		"--name=" + m.Name, "--data-dir=" + m.DataDir(),
		"--listen-client-urls=" + m.ClientURL(), "--advertise-client-urls=" + m.ClientURL(),
		"--listen-peer-urls=" + m.PeerURL(), "--initial-advertise-peer-urls=" + m.advertised(),
		"--initial-cluster=" + cluster, "--initial-cluster-state=" + state,
		"--initial-cluster-token=" + options.Token,
	}
	if made := m.cluster.certificates; made != nil {
		args = append(args,
			"--cert-file="+made.memberCert, "--key-file="+made.memberKey, "--trusted-ca-file="+made.authority, "--client-cert-auth",
			"--peer-cert-file="+made.memberCert, "--peer-key-file="+made.memberKey, "--peer-trusted-ca-file="+made.authority,
			"--peer-client-cert-auth")
	}
	if options.LogApart {
		args = append(args, "--wal-dir="+m.logDir())
	}
	return append(args, options.Args...)
}

// Start begins a life without waiting for it.
func (m *Member) Start() error {
	if m.Running() {
		return fmt.Errorf("%s runs already", m)
	}
	line := append([]string{m.binary}, m.args()...)
	if m.namespace != "" {
		line = append([]string{"ip", "netns", "exec", m.namespace}, line...)
	}
	begun, err := begin(line, m.clockEnv(), m.LogFile())
	if err != nil {
		return err
	}
	m.process = begun
	m.lives.Add(1)
	return nil
}

// Upgrade sets the program of the next life.
func (m *Member) Upgrade(binary string) { m.binary = binary }

// Life is how often it was started.
func (m *Member) Life() int { return int(m.lives.Load()) }

// AwaitReady waits until the present life serves.
func (m *Member) AwaitReady() error {
	if err := m.process.awaitReady(); err != nil {
		return fmt.Errorf("%s: %w", m, err)
	}
	return nil
}

// LogFile has the output of all lives.
func (m *Member) LogFile() string {
	return filepath.Join(m.cluster.folder, m.Name+".log")
}

// LastLine is the newest line that this life has printed.
func (m *Member) LastLine() string { return m.process.lastLine() }

// Said tells whether this life has printed a text.
func (m *Member) Said(text string) bool { return strings.Contains(m.process.output(), text) }

// Running says whether the process lives; a paused one does.
func (m *Member) Running() bool { return m.process != nil && m.process.running() }

// Pid of the present life.
func (m *Member) Pid() int { return m.process.command.Process.Pid }

// Kill ends the process with SIGKILL, if it has not ended, and returns when it is gone.
func (m *Member) Kill() error {
	if !m.Running() {
		return nil
	}
	if err := m.process.signal(syscall.SIGKILL); err != nil && m.process.running() {
		return err
	}
	return m.process.awaitExit(exitTimeout)
}

// Terminate asks the process to end.
func (m *Member) Terminate() error {
	if err := m.process.signal(syscall.SIGTERM); err != nil {
		return err
	}
	return m.AwaitExit(exitTimeout)
}

// AwaitExit waits until the process has ended by itself.
//
// # Errors
// [ErrRuns] if it has not within `timeout`.
func (m *Member) AwaitExit(timeout time.Duration) error { return m.process.awaitExit(timeout) }

// ExitCode of the last life; -1 if a signal ended it.
func (m *Member) ExitCode() int { return m.process.command.ProcessState.ExitCode() }

// Pause stops the process where it stands; Resume lets it go on.
func (m *Member) Pause() error { return m.process.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (m *Member) Resume() error { return m.process.signal(syscall.SIGCONT) }

// FillDisk takes all space of the member's disk but so many bytes.
func (m *Member) FillDisk(leave int64) error { return m.disk.fill(leave) }

// FreeDisk gives it back.
func (m *Member) FreeDisk() error { return m.disk.empty() }

// Memory is what the process holds now, in bytes.
func (m *Member) Memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Pid()))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), "VmRSS:")
	var kibibytes int64
	if _, err := fmt.Sscan(rest, &kibibytes); !found || err != nil {
		return 0, fmt.Errorf("no VmRSS of %s", m)
	}
	return kibibytes << 10, nil
}

// Status is what the member says of itself, asked for at most `timeout`.
func (m *Member) Status(timeout time.Duration) (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return pb.NewMaintenanceClient(m.conn).Status(ctx, &pb.StatusRequest{})
}

// Check reads the directory of a member that does not run with basaltctl, which lies beside the program.
func (m *Member) Check() error {
	args := []string{"check", m.DataDir()}
	if m.cluster.Options.LogApart {
		args = append(args, "--wal-dir="+m.logDir())
	}
	if output, err := exec.Command(m.cluster.tool(), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("basaltctl check of %s: %w: %s", m, err, output)
	}
	return nil
}
