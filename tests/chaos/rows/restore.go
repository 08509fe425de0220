package rows

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/chaos/load"
	"basalt/tests/chaos/rig"
)

// bump is by how much a restore raises the revision.
const bump = 1_000_000_000

// restore is row 23: a majority is lost for good, and a snapshot becomes a new cluster at the same addresses.
func restore(s *Stage) error {
	if err := s.begin(func(_ *rig.Options, clients *load.Options) { clients.ValueBytes = 4096 }); err != nil {
		return err
	}
	if err := s.wait(size(s, 3*time.Second, 20*time.Second, 2*time.Minute)); err != nil {
		return err
	}
	members := s.cluster.Members()
	snapshot, err := saveSnapshot(s, members[0])
	if err != nil {
		return err
	}
	saved, err := os.Stat(snapshot)
	if err != nil {
		return err
	}
	if err := s.wait(time.Second); err != nil {
		return err
	}
	old := s.load.Told()
	s.load.Abandon()
	for _, member := range members {
		if err := member.Kill(); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := s.cluster.Restore(snapshot, "--bump-revision", fmt.Sprint(bump), "--mark-compacted"); err != nil {
		return err
	}
	if err := s.cluster.StartAll(); err != nil {
		return err
	}
	var newest int64
	if _, err := s.until("a write of the new cluster", time.Minute, func() bool {
		ctx, cancel := context.WithTimeout(s, 2*time.Second)
		defer cancel()
		put, err := pb.NewKVClient(members[0].Conn()).Put(ctx, &pb.PutRequest{Key: []byte("k/after"), Value: []byte("restored")})
		newest = put.GetHeader().GetRevision()
		return err == nil
	}); err != nil {
		return err
	}
	took := time.Since(began)
	s.Did("all members killed, a snapshot of %d MiB restored on all three with --bump-revision --mark-compacted", mebibytes(saved.Size()))
	s.RequireTime(took <= time.Minute, "writes %s after the loss", rounded(took))
	s.Require(newest > old, "its revision %d is above the %d that clients had seen", newest, old)
	for _, member := range members {
		compacted, err := oldWatch(s, member, old)
		if err != nil {
			return err
		}
		s.Require(compacted > old, "a watch from %d through %s is ended as compacted at %d", old, member, compacted)
	}
	// A new load judges the new cluster.
	clients := s.Options.Load
	clients.Seed += 77
	if s.load, err = load.Start(s.cluster, clients); err != nil {
		return err
	}
	if err := s.wait(3 * time.Second); err != nil {
		return err
	}
	return s.judge()
}

func saveSnapshot(s *Stage, member *rig.Member) (string, error) {
	ctx, cancel := context.WithTimeout(s, 2*time.Minute)
	defer cancel()
	stream, err := pb.NewMaintenanceClient(member.Conn()).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.Options.Rig.Folder, "saved.db")
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		if _, err := file.Write(piece.Blob); err != nil {
			return "", err
		}
	}
}

// oldWatch starts where a client of the lost cluster would, and tells as compacted at which revision it is ended.
func oldWatch(s *Stage, member *rig.Member, revision int64) (int64, error) {
	ctx, cancel := context.WithTimeout(s, 10*time.Second)
	defer cancel()
	stream, err := pb.NewWatchClient(member.Conn()).Watch(ctx)
	if err != nil {
		return 0, err
	}
	create := &pb.WatchCreateRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), StartRevision: revision}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return 0, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return 0, fmt.Errorf("an old watch through %s: %w", member, err)
		}
		if answer.Canceled {
			return answer.CompactRevision, nil
		}
	}
}
