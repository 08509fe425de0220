package harness

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Members are the servers of one cluster.
type Members []*Server

// StartMembers starts a new cluster of so many and returns when all are ready.
func StartMembers(t testing.TB, kind Kind, count int, args ...string) Members {
	t.Helper()
	members := NewMembers(t, kind, count, args...)
	members.Start()
	return members
}

// NewMembers are the members of a cluster that has not been started.
func NewMembers(t testing.TB, kind Kind, count int, args ...string) Members {
	t.Helper()
	var members Members
	var initial []string
	for n := range count {
		name := fmt.Sprintf("m%d", n)
		member := &Server{
			Kind: kind, DataDir: filepath.Join(t.TempDir(), name), name: name,
			t: t, clientPort: FreePort(t), peerPort: FreePort(t), extra: args, log: newOutputLog(readyLine),
		}
		t.Cleanup(member.cleanup)
		members = append(members, member)
		initial = append(initial, name+"="+member.PeerURL())
	}
	for _, member := range members {
		member.cluster = strings.Join(initial, ",")
	}
	return members
}

// Start starts all and returns when they are ready.
func (m Members) Start() {
	for _, member := range m {
		member.launch()
	}
	for _, member := range m {
		member.awaitReady()
	}
}

// RestoreFlags are those with which a snapshot is restored for a member that has not been started.
func (s *Server) RestoreFlags() []string {
	return []string{"--name=" + s.name, "--data-dir=" + s.DataDir, "--initial-cluster=" + s.cluster, "--initial-advertise-peer-urls=" + s.PeerURL()}
}

// Endpoints of all, as etcdctl takes them.
func (m Members) Endpoints() string {
	var endpoints []string
	for _, member := range m {
		endpoints = append(endpoints, member.Target())
	}
	return strings.Join(endpoints, ",")
}

// Without is all but one.
func (m Members) Without(gone *Server) Members {
	var others Members
	for _, member := range m {
		if member != gone {
			others = append(others, member)
		}
	}
	return others
}

// AddArgs adds flags to those of its next life.
func (s *Server) AddArgs(args ...string) { s.extra = slices.Concat(s.extra, args) }

// Extra gives the flags that came with the server, beside the harness's own, and sets those of the next lives.
func (s *Server) Extra(args ...string) (before []string) {
	before, s.extra = s.extra, args
	return before
}

// Spare is a server that will be a member and has not been started: etcdctl is to add it first.
func Spare(t testing.TB, kind Kind, name string, args ...string) *Server {
	t.Helper()
	spare := &Server{
		Kind: kind, DataDir: filepath.Join(t.TempDir(), name), name: name,
		t: t, clientPort: FreePort(t), peerPort: FreePort(t), extra: append(args, "--initial-cluster-state=existing"), log: newOutputLog(readyLine),
	}
	t.Cleanup(spare.cleanup)
	return spare
}

// Join starts a spare as one of these members and of itself, with the cluster that `member add` prints.
func (s *Server) Join(members Members) {
	s.t.Helper()
	s.JoinLater(members)
	s.awaitReady()
}

// JoinLater starts a spare without waiting for it.
func (s *Server) JoinLater(members Members) {
	s.t.Helper()
	var cluster []string
	for _, member := range append(members, s) {
		name := member.name
		if name == "" {
			name = "default"
		}
		cluster = append(cluster, name+"="+member.PeerURL())
	}
	s.cluster = strings.Join(cluster, ",")
	s.launch()
}
