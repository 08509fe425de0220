package interop

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// observeForceNewCluster loses two of three members for good: the third one, with the flag, is a cluster of its own with all
// data, and takes members again. The flag a second time changes nothing.
func observeForceNewCluster(t *testing.T) {
	kind := harness.UnderTest(t)
	members := harness.StartMembers(t, kind, 3)
	left := members.Without(leaderOf(t, members))[0]
	kv := pb.NewKVClient(left.Conn(t))
	ctx := harness.Context(t, 2*time.Minute)
	granted, err := pb.NewLeaseClient(left.Conn(t)).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		put := &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/pods/%d", n), Value: []byte("value"), Lease: granted.ID}
		if _, err := kv.Put(ctx, put); err != nil {
			t.Fatal(err)
		}
	}
	sameEverywhere(t, members)
	before := everything(t, left)
	for _, member := range members {
		member.Kill()
	}
	if kind == harness.Basalt {
		// By this an operator chooses among several that are left.
		checked := harness.Basaltctl(t, "check", left.DataDir)
		if end := regexp.MustCompile(`(?m)^log: ends with entry (\d+) of term [1-9]\d*$`).FindStringSubmatch(checked.Stdout); end == nil || len(end[1]) < 3 {
			t.Errorf("the check of a member that is left, exit %d: %s%s", checked.Code, checked.Stdout, checked.Stderr)
		}
	}

	flags := left.Extra("--force-new-cluster")
	for range 2 {
		left.Restart()
		aloneWith(t, left, before, granted.ID)
		left.Kill()
	}
	left.Extra(flags...)
	left.Restart()
	aloneWith(t, left, before, granted.ID)
	putUntilTaken(t, left, "/registry/after", "value")

	// It grows again, and those that were lost are no members of it any more.
	spare := harness.Spare(t, kind, "spare")
	id := addMember(t, left, spare, true)
	spare.Join(harness.Members{left})
	promote(t, left, id)
	putUntilTaken(t, spare, "/registry/through/spare", "value")
	sameEverywhere(t, harness.Members{left, spare})
	if kind == harness.Basalt {
		lost := members.Without(left)[0]
		lost.RestartLater()
		if code := lost.AwaitExit(); code != 0 {
			t.Errorf("a lost member that came back ended with %d", code)
		}
		if !lost.LogContains("this member was removed from the cluster and stops") {
			t.Error("a lost member that came back does not say why it stops")
		}
	}
	putUntilTaken(t, left, "/registry/after", "more")
	sameEverywhere(t, harness.Members{left, spare})
}

// aloneWith fails unless a member is the only one, serves linearizable reads of what was there before, and knows the lease.
func aloneWith(t *testing.T, member *harness.Server, before *pb.RangeResponse, lease int64) {
	t.Helper()
	now := everything(t, member)
	if member.Kind == harness.Etcd {
		// It drops what it does not know as committed, though it was acknowledged: here the last write.
		if now.Count < before.Count-1 {
			t.Errorf("%d keys, not %d", now.Count, before.Count)
		}
		return
	}
	if now.Header.Revision != before.Header.Revision || now.Count != before.Count || now.Header.ClusterId != before.Header.ClusterId {
		t.Errorf("%d keys at revision %d of cluster %x, not %d at %d of %x", now.Count, now.Header.Revision, now.Header.ClusterId,
			before.Count, before.Header.Revision, before.Header.ClusterId)
	}
	for n, kv := range now.Kvs {
		if kv.String() != before.Kvs[n].String() {
			t.Fatalf("%v is not what was there: %v", kv, before.Kvs[n])
		}
	}
	listed, err := clusterOf(t, member).MemberList(harness.Context(t, 10*time.Second), &pb.MemberListRequest{Linearizable: true})
	if err != nil || len(listed.Members) != 1 || listed.Members[0].ID != now.Header.MemberId || listed.Members[0].IsLearner {
		t.Fatalf("members of a cluster of one: %v %v", listed, err)
	}
	left, err := pb.NewLeaseClient(member.Conn(t)).LeaseTimeToLive(harness.Context(t, 10*time.Second), &pb.LeaseTimeToLiveRequest{ID: lease, Keys: true})
	if err != nil || left.GrantedTTL != 600 || int64(len(left.Keys)) != before.Count {
		t.Fatalf("the lease: %v %v", left, err)
	}
}

// TestForceNewClusterAmidWrites kills everything amid writes: what was acknowledged is there, whichever member goes on alone.
func TestForceNewClusterAmidWrites(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	leader := leaderOf(t, members)
	kv := pb.NewKVClient(leader.Conn(t))
	acknowledged := 0
	ctx := harness.Context(t, time.Minute)
	stop := time.After(500 * time.Millisecond)
	for done := false; !done; {
		select {
		case <-stop:
			done = true
		default:
			if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "/k/%06d", acknowledged), Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
			acknowledged++
		}
	}
	for _, member := range members {
		member.Kill()
	}
	leader.Extra("--force-new-cluster")
	leader.Restart()
	// etcd drops what it does not know as committed, though it was acknowledged.
	if found := len(everything(t, leader).Kvs); found < acknowledged && harness.UnderTest(t) == harness.Basalt {
		t.Errorf("%d of %d acknowledged keys are there", found, acknowledged)
	}
	putUntilTaken(t, leader, "/k/after", "v")
}
