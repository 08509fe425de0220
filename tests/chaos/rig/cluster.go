// Package rig runs the members of one cluster as real processes, each in a network namespace of its own, with mutual TLS, and does
// to them what machines, networks, disks and clocks do. It judges nothing.
//
//	test, clients ── bridge ─┬─ namespace: member 0 ── its disk, its clock
//	                         ├─ namespace: member 1
//	                         └─ namespace: member 2
//
// It never touches a process that it did not start.
package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Options of a cluster.
type Options struct {
	// Binary is the program of all members: basalt or etcd.
	Binary string
	// Size is how many members begin.
	Size int
	// Network, or none for members on the loopback without TLS, which can only be killed, stopped and paused.
	Network string
	// Folder is where a folder for this cluster is made.
	Folder string
	// Disk of each member, with its size if it is not the folder's own.
	Disk    DiskKind
	DiskMiB int
	// LogApart puts the logs into the folder, beside the disks.
	LogApart bool
	// Proxied members can hear each other late, at the price of a proxy in every connection between them.
	Proxied bool
	// Clocks of their own, by libfaketime.
	Clocks bool
	// Args for every member.
	Args []string
	// Token of the cluster.
	Token string
}

// Cluster is its members.
type Cluster struct {
	Options Options

	mutex   sync.Mutex
	members []*Member

	folder       string
	network      *Network
	certificates *certificates
	initial      string
	born         int
}

// New makes all that a cluster needs, and starts nothing.
func New(options Options) (*Cluster, error) {
	if options.Disk == "" {
		options.Disk = Folder
	}
	if options.Token == "" {
		options.Token = "chaos"
	}
	folder, err := os.MkdirTemp(options.Folder, "cluster.")
	if err != nil {
		return nil, err
	}
	cluster := &Cluster{Options: options, folder: folder}
	if err := cluster.prepare(); err != nil {
		cluster.Close()
		return nil, err
	}
	return cluster, nil
}

func (c *Cluster) prepare() (err error) {
	if c.Options.Network != "" {
		if c.network, err = NewNetwork(c.Options.Network); err != nil {
			return err
		}
		if c.certificates, err = newCertificates(c.folder, c.network.addresses()); err != nil {
			return err
		}
	}
	var initial []string
	for range c.Options.Size {
		member, err := c.add()
		if err != nil {
			return err
		}
		initial = append(initial, member.Name+"="+member.advertised())
	}
	c.initial = strings.Join(initial, ",")
	return nil
}

// Start is New with all members started and ready.
func Start(options Options) (*Cluster, error) {
	cluster, err := New(options)
	if err != nil {
		return nil, err
	}
	if err := cluster.StartAll(); err != nil {
		err = fmt.Errorf("%w\n%s", err, cluster.Tails())
		cluster.Close()
		return nil, err
	}
	return cluster, nil
}

// StartAll starts those that do not run, and returns when all are ready.
func (c *Cluster) StartAll() error {
	for _, member := range c.Members() {
		if !member.Running() {
			if err := member.Start(); err != nil {
				return err
			}
		}
	}
	for _, member := range c.Members() {
		if err := member.AwaitReady(); err != nil {
			return err
		}
	}
	return nil
}

// Members are the present ones, the oldest first. The slice is never changed.
func (c *Cluster) Members() []*Member {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.members
}

// add makes a member with namespace, disk and clock; only a whole one is among the members.
func (c *Cluster) add() (*Member, error) {
	member := &Member{
		Number: c.born, Name: fmt.Sprintf("m%d", c.born), cluster: c, clientPort: clientPort, peerPort: peerPort, binary: c.Options.Binary,
	}
	c.born++
	if err := c.equip(member); err != nil {
		c.discard(member)
		return nil, err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.members = append(slices.Clone(c.members), member)
	return member, nil
}

func (c *Cluster) equip(member *Member) (err error) {
	if c.network == nil {
		member.Address = "127.0.0.1"
		if member.clientPort, err = freePort(); err != nil {
			return err
		}
		if member.peerPort, err = freePort(); err != nil {
			return err
		}
	} else if member.namespace, member.Address, err = c.network.add(member.Number); err != nil {
		return err
	}
	if member.disk, err = newDisk(c.Options.Disk, filepath.Join(c.folder, member.Name), c.Options.DiskMiB); err != nil {
		return err
	}
	if c.Options.Proxied {
		if err := member.startProxy(); err != nil {
			return err
		}
	}
	if c.Options.Clocks {
		if err := member.SetClock("+0"); err != nil {
			return err
		}
	}
	member.conn, err = member.Dial()
	return err
}

// freePort is one of the loopback, below the range from which outgoing connections are served.
func freePort() (int, error) {
	for range 1000 {
		port := 12_000 + int(time.Now().UnixNano()/1000%20_000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			listener.Close()
			return port, nil
		}
		time.Sleep(time.Millisecond)
	}
	return 0, errors.New("no free loopback port")
}

// Close ends all processes and removes all that was made, data too.
func (c *Cluster) Close() {
	for _, member := range c.Members() {
		c.discard(member)
	}
	if c.network != nil {
		c.network.Close()
	}
	_ = os.RemoveAll(c.folder)
}

func (c *Cluster) discard(member *Member) {
	_ = member.Kill()
	if member.conn != nil {
		member.conn.Close()
	}
	if member.proxy != nil {
		member.proxy.close()
	}
	if member.disk != nil {
		member.disk.close()
	}
	if c.network != nil {
		c.network.remove(member.Number)
	}
}

// Tails are the last lines of each member's log, without those of slow requests, of which a fault makes hundreds.
func (c *Cluster) Tails() string {
	var text strings.Builder
	for _, member := range c.Members() {
		all, _ := os.ReadFile(member.LogFile())
		lines := strings.Split(strings.TrimSpace(string(all)), "\n")
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, `"msg":"request stats"`) })
		fmt.Fprintf(&text, "the last of %s:\n  %s\n", member, strings.Join(lines[max(0, len(lines)-12):], "\n  "))
	}
	return text.String()
}

func (c *Cluster) scheme() string {
	if c.certificates != nil {
		return "https"
	}
	return "http"
}

// tool is basaltctl, which lies beside the program.
func (c *Cluster) tool() string { return filepath.Join(filepath.Dir(c.Options.Binary), "basaltctl") }

// Others are all members but one.
func (c *Cluster) Others(one *Member) []*Member {
	var others []*Member
	for _, member := range c.Members() {
		if member != one {
			others = append(others, member)
		}
	}
	return others
}

// statusTimeout is below an election: a paused member must not hide who leads.
const statusTimeout = 400 * time.Millisecond

// LeaderNow is the member that says it leads, the one of the highest term if several do; nil if none.
func (c *Cluster) LeaderNow() *Member {
	type answer struct {
		member *Member
		status *pb.StatusResponse
	}
	answers := make(chan answer, len(c.Members()))
	for _, member := range c.Members() {
		go func() {
			status, err := member.Status(statusTimeout)
			if err != nil || status.Leader != status.Header.MemberId {
				status = nil
			}
			answers <- answer{member, status}
		}()
	}
	var leader answer
	for range c.Members() {
		if next := <-answers; next.status != nil && (leader.status == nil || next.status.RaftTerm > leader.status.RaftTerm) {
			leader = next
		}
	}
	return leader.member
}

// Leader waits until a member leads.
func (c *Cluster) Leader() (*Member, error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if leader := c.LeaderNow(); leader != nil {
			return leader, nil
		}
	}
	return nil, fmt.Errorf("no member leads for 30 s\n%s", c.Tails())
}

// Replace removes a member from the cluster through another and brings a new one in its place: a learner first, then promoted.
func (c *Cluster) Replace(ctx context.Context, gone *Member) (*Member, error) {
	if err := c.Remove(ctx, gone); err != nil {
		return nil, err
	}
	return c.Join(ctx)
}

// Remove takes a member out of the cluster, ends it and discards its data.
func (c *Cluster) Remove(ctx context.Context, gone *Member) error {
	others := c.Others(gone)
	err := c.insist(ctx, others, func(ctx context.Context, client pb.ClusterClient) error {
		listed, err := client.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			return err
		}
		for _, member := range listed.Members {
			if member.Name == gone.Name {
				_, err := client.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: member.ID})
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", gone, err)
	}
	c.mutex.Lock()
	c.members = others
	c.mutex.Unlock()
	c.discard(gone)
	return nil
}

// Join brings a new member in.
func (c *Cluster) Join(ctx context.Context) (*Member, error) {
	present := c.Members()
	member, err := c.add()
	if err != nil {
		return nil, err
	}
	var id uint64
	err = c.insist(ctx, present, func(ctx context.Context, client pb.ClusterClient) error {
		added, err := client.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{member.advertised()}, IsLearner: true})
		if err == nil {
			id = added.Member.ID
			return nil
		}
		// A try whose answer was lost may have done it.
		if listed, listError := client.MemberList(ctx, &pb.MemberListRequest{Linearizable: true}); listError == nil {
			for _, known := range listed.Members {
				if known.PeerURLs[0] == member.advertised() {
					id = known.ID
					return nil
				}
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("add %s: %w", member, err)
	}
	var cluster []string
	for _, known := range c.Members() {
		cluster = append(cluster, known.Name+"="+known.advertised())
	}
	member.joining = strings.Join(cluster, ",")
	if err := member.Start(); err != nil {
		return nil, err
	}
	if err := member.AwaitReady(); err != nil {
		return nil, err
	}
	err = c.insist(ctx, present, func(ctx context.Context, client pb.ClusterClient) error {
		_, err := client.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
		if err != nil && strings.Contains(err.Error(), "can only promote a learner member") && !strings.Contains(err.Error(), "in sync") {
			return nil // an earlier try has done it
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("promote %s: %w", member, err)
	}
	return member, nil
}

// insist tries a call through one member after the other until it succeeds or the context ends.
func (c *Cluster) insist(ctx context.Context, through []*Member, call func(context.Context, pb.ClusterClient) error) error {
	for turn := 0; ; turn++ {
		once, cancel := context.WithTimeout(ctx, 8*time.Second)
		err := call(once, pb.NewClusterClient(through[turn%len(through)].conn))
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Restore makes new data of all members, which do not run, from a snapshot, as a new cluster of them.
func (c *Cluster) Restore(snapshot string, flags ...string) error {
	for _, member := range c.Members() {
		if err := os.RemoveAll(member.DataDir()); err != nil {
			return err
		}
		args := append([]string{
			"snapshot", "restore", snapshot, "--data-dir", member.DataDir(), "--name", member.Name, "--initial-cluster", c.initial,
			"--initial-cluster-token", c.Options.Token, "--initial-advertise-peer-urls", member.advertised(),
		}, flags...)
		if _, err := run(c.tool(), args...); err != nil {
			return err
		}
	}
	return nil
}
