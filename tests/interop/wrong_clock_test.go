package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	"basalt/tests/interop/harness"
)

// shiftedClock tells a program another time of day; how long things take it tells rightly.
const shiftedClock = `
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
	long failed = syscall(SYS_clock_gettime, clock, time);
	const char *shift = getenv("SHIFT_SECONDS");
	if (failed == 0 && clock == CLOCK_REALTIME && shift) time->tv_sec += atol(shift);
	return failed;
}
`

// withClock is a wrapper under which a program's clock is so many seconds ahead.
func withClock(t *testing.T, seconds int) []string {
	t.Helper()
	directory := t.TempDir()
	source, library := filepath.Join(directory, "clock.c"), filepath.Join(directory, "clock.so")
	if err := os.WriteFile(source, []byte(shiftedClock), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v %s", err, output)
	}
	return []string{"env", "LD_PRELOAD=" + library, fmt.Sprint("SHIFT_SECONDS=", seconds)}
}

// TestWrongClock sets the clock of one member an hour ahead: the others say so, and leases live as long as they should, also
// when that member leads. The runbook docs/operations/wrong-clock.md.
func TestWrongClock(t *testing.T) {
	needsBasaltctl(t)
	members := harness.StartMembers(t, harness.Basalt, 3)
	wrong := members.Without(leaderOf(t, members))[0]
	others := members.Without(wrong)
	wrong.Kill()
	wrong.Wrap(withClock(t, 3600))
	wrong.Restart()
	id := idOf(t, wrong)
	name := fmt.Sprintf(`basalt_peer_clock_difference_seconds{To="%x"}`, id)
	for _, member := range others {
		awaitSample(t, member, name, func(value float64) bool { return value > 3500 && value < 3700 })
	}
	awaitSample(t, wrong, fmt.Sprintf(`basalt_peer_clock_difference_seconds{To="%x"}`, idOf(t, others[0])), func(value float64) bool { return value > -3700 && value < -3500 })

	granted, err := pb.NewLeaseClient(others[0].Conn(t)).LeaseGrant(harness.Context(t, 10*time.Second), &pb.LeaseGrantRequest{TTL: 120})
	if err != nil {
		t.Fatal(err)
	}
	put := &pb.PutRequest{Key: []byte("/registry/leases/a"), Lease: granted.ID}
	if _, err := pb.NewKVClient(others[0].Conn(t)).Put(harness.Context(t, 10*time.Second), put); err != nil {
		t.Fatal(err)
	}
	for _, leads := range []*harness.Server{wrong, others[0]} {
		if leader := leaderOf(t, members); leader != leads {
			if _, err := pb.NewMaintenanceClient(leader.Conn(t)).MoveLeader(harness.Context(t, 10*time.Second), &pb.MoveLeaderRequest{TargetID: idOf(t, leads)}); err != nil {
				t.Fatal(err)
			}
		}
		for _, member := range members {
			left, err := pb.NewLeaseClient(member.Conn(t)).LeaseTimeToLive(harness.Context(t, 10*time.Second), &pb.LeaseTimeToLiveRequest{ID: granted.ID, Keys: true})
			if err != nil || left.TTL <= 0 || left.TTL > 130 || len(left.Keys) != 1 {
				t.Fatalf("a lease of 120 s, where %s leads: %v %v", leads.Endpoint(), left, err)
			}
		}
		putUntilTaken(t, members[0], "/registry/through", "value")
	}
	sameEverywhere(t, members)
	await(t, harness.Context(t, 90*time.Second), "a line about the clock", func() bool {
		return others[0].LogContains("prober found high clock drift")
	})

	wrong.Kill()
	wrong.Wrap(nil)
	wrong.Restart()
	for _, member := range others {
		awaitSample(t, member, name, func(value float64) bool { return value > -1 && value < 1 })
	}
}

// TestTokensUnderAWrongClock: a member whose clock is an hour ahead takes a token that another made just now, as etcd's does.
func TestTokensUnderAWrongClock(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	wrong := members.Without(leaderOf(t, members))[0]
	wrong.Kill()
	wrong.Wrap(withClock(t, 3600))
	wrong.Restart()
	right := members.Without(wrong)[0]
	guard(t, right)
	ctx := harness.Context(t, time.Minute)
	for _, from := range []*harness.Server{right, wrong} {
		ann := login(t, ctx, servicesOf(from.Conn(t)), "ann", "word")
		for _, at := range members {
			err := get(&pb.RangeRequest{Key: []byte("a1")})(ann, servicesOf(at.Conn(t)))
			expectStatus(t, "a token of "+from.Endpoint()+" at "+at.Endpoint(), err, codes.OK, "")
		}
	}
}
