package interop

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// refusedWith fails unless err is that status.
func refusedWith(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || status.Convert(err).Message() != text {
		t.Errorf("%s: %v, want %v %q", what, err, code, text)
	}
}

func clusterOf(t *testing.T, member *harness.Server) pb.ClusterClient {
	return pb.NewClusterClient(member.Conn(t))
}

// addLearner adds a spare, as soon as the cluster takes it.
func addMember(t *testing.T, through *harness.Server, spare *harness.Server, learner bool) uint64 {
	t.Helper()
	request := &pb.MemberAddRequest{PeerURLs: []string{spare.PeerURL()}, IsLearner: learner}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		added, err := clusterOf(t, through).MemberAdd(harness.Context(t, 10*time.Second), request)
		if err == nil {
			if added.Member.IsLearner != learner || added.Member.Name != "" || added.Header.Revision != 0 {
				t.Fatalf("added: %v", added)
			}
			return added.Member.ID
		}
		// Members count as reached after five seconds.
		if status.Code(err) != codes.Unavailable || time.Now().After(deadline) {
			t.Fatalf("member add: %v", err)
		}
	}
}

// promote tries until the learner is in sync.
func promote(t *testing.T, through *harness.Server, id uint64) *pb.MemberPromoteResponse {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		promoted, err := clusterOf(t, through).MemberPromote(harness.Context(t, 10*time.Second), &pb.MemberPromoteRequest{ID: id})
		if err == nil {
			return promoted
		}
		refusedWith(t, "promote", err, codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
		if t.Failed() || time.Now().After(deadline) {
			t.FailNow()
		}
	}
}

// TestClusterGrows begins with one member, adds two as kubeadm does (learner, start, promote), and removes the first, which
// leads: the data is there through all of it.
func TestClusterGrows(t *testing.T) {
	t.Parallel()
	kind := harness.UnderTest(t)
	first := harness.StartUnderTest(t)
	members := harness.Members{first}
	for n := range 300 {
		putUntilTaken(t, first, fmt.Sprintf("/registry/pods/%d", n%50), "value")
	}
	for _, name := range []string{"second", "third"} {
		spare := harness.Spare(t, kind, name)
		id := addMember(t, first, spare, true)
		_, err := clusterOf(t, first).MemberPromote(harness.Context(t, 10*time.Second), &pb.MemberPromoteRequest{ID: id})
		refusedWith(t, "promotion of a learner that does not run", err, codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
		spare.Join(members)

		// A learner serves what it has to whoever wants no more (etcd-contract 45).
		kv := pb.NewKVClient(spare.Conn(t))
		read := &pb.RangeRequest{Key: []byte("/registry/pods/1")}
		_, err = kv.Range(harness.Context(t, 10*time.Second), read)
		refusedWith(t, "linearizable read at a learner", err, codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
		_, err = kv.Put(harness.Context(t, 10*time.Second), &pb.PutRequest{Key: []byte("a")})
		refusedWith(t, "put at a learner", err, codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
		read.Serializable = true
		found := false
		for deadline := time.Now().Add(10 * time.Second); !found && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			got, err := kv.Range(harness.Context(t, 10*time.Second), read)
			found = err == nil && len(got.Kvs) == 1
		}
		if !found {
			t.Fatalf("the learner %s does not get the data", name)
		}
		state, err := pb.NewMaintenanceClient(spare.Conn(t)).Status(harness.Context(t, 10*time.Second), &pb.StatusRequest{})
		if err != nil || !state.IsLearner {
			t.Fatalf("status of a learner: %v %v", state, err)
		}
		_, err = clusterOf(t, first).MemberAdd(harness.Context(t, 10*time.Second), &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
		if text := status.Convert(err).Message(); text != "etcdserver: too many learner members in cluster" && text != "etcdserver: unhealthy cluster" {
			t.Errorf("a second learner: %v", err)
		}

		promoted := promote(t, first, id)
		for _, member := range promoted.Members {
			if member.IsLearner {
				t.Errorf("still a learner after promotion: %v", member)
			}
		}
		members = append(members, spare)
		putUntilTaken(t, spare, "/registry/through/"+name, "value")
		sameEverywhere(t, members)
	}

	// The leader is removed: it stops, and the others go on.
	leader := leaderOf(t, members)
	for leader != first {
		id := idOf(t, first)
		if _, err := pb.NewMaintenanceClient(leader.Conn(t)).MoveLeader(harness.Context(t, 10*time.Second), &pb.MoveLeaderRequest{TargetID: id}); err != nil {
			t.Fatal(err)
		}
		leader = leaderOf(t, members)
	}
	removeUntilTaken(t, first, idOf(t, first))
	if code := first.AwaitExit(); code != 0 {
		t.Errorf("the removed member ended with %d", code)
	}
	rest := members.Without(first)
	putUntilTaken(t, rest[0], "/registry/after", "value")
	putUntilTaken(t, rest[1], "/registry/after", "again")
	sameEverywhere(t, rest)
	listed, err := clusterOf(t, rest[0]).MemberList(harness.Context(t, 10*time.Second), &pb.MemberListRequest{Linearizable: true})
	if err != nil || len(listed.Members) != 2 {
		t.Fatalf("members after the removal: %v %v", listed, err)
	}
	// All of it is durable: members come back as those that they are.
	for _, member := range rest {
		member.Kill()
	}
	for _, member := range rest {
		member.RestartLater()
	}
	for _, member := range rest {
		member.AwaitReady()
	}
	putUntilTaken(t, rest[0], "/registry/after", "restart")
	sameEverywhere(t, rest)
}

func idOf(t *testing.T, member *harness.Server) uint64 {
	t.Helper()
	state, err := pb.NewMaintenanceClient(member.Conn(t)).Status(harness.Context(t, 10*time.Second), &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return state.Header.MemberId
}

// removeUntilTaken removes a member, once the others count as reached.
func removeUntilTaken(t *testing.T, through *harness.Server, id uint64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, err := clusterOf(t, through).MemberRemove(harness.Context(t, 10*time.Second), &pb.MemberRemoveRequest{ID: id})
		if err == nil {
			return
		}
		if status.Code(err) != codes.Unavailable || time.Now().After(deadline) {
			t.Fatalf("member remove: %v", err)
		}
	}
}

// TestMemberChangesRefused asks for changes that cannot be (etcd-contract 46).
func TestMemberChangesRefused(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	leader := leaderOf(t, members)
	follower := members.Without(leader)[0]
	spare := harness.Spare(t, harness.UnderTest(t), "spare")
	ctx := harness.Context(t, time.Minute)
	cluster := clusterOf(t, follower)

	_, err := cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"no url"}})
	refusedWith(t, "add at no URL", err, codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	_, err = cluster.MemberAdd(ctx, &pb.MemberAddRequest{})
	refusedWith(t, "add without a URL", err, codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	// Until all are reached for five seconds.
	id := addMember(t, follower, spare, true)
	_, err = cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{leader.PeerURL()}})
	refusedWith(t, "add at a URL that is taken", err, codes.FailedPrecondition, "etcdserver: Peer URLs already exists")
	_, err = cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
	refusedWith(t, "a second learner", err, codes.FailedPrecondition, "etcdserver: too many learner members in cluster")
	_, err = cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 7})
	refusedWith(t, "remove of nobody", err, codes.NotFound, "etcdserver: member not found")
	_, err = cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 7, PeerURLs: []string{"http://127.0.0.1:1"}})
	refusedWith(t, "update of nobody", err, codes.NotFound, "etcdserver: member not found")
	_, err = cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{leader.PeerURL()}})
	refusedWith(t, "update to a URL that is taken", err, codes.FailedPrecondition, "etcdserver: Peer URLs already exists")
	_, err = cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 7})
	refusedWith(t, "promotion of nobody", err, codes.NotFound, "etcdserver: member not found")
	_, err = cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: idOf(t, leader)})
	refusedWith(t, "promotion of a voter", err, codes.FailedPrecondition, "etcdserver: can only promote a learner member")
	_, err = cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	refusedWith(t, "promotion of a learner that does not run", err, codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")

	updated, err := cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{"http://127.0.0.1:1"}})
	if err != nil || len(updated.Members) != 4 {
		t.Fatalf("update: %v %v", updated, err)
	}
	removed, err := cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
	if err != nil || len(removed.Members) != 3 {
		t.Fatalf("remove: %v %v", removed, err)
	}
	_, err = cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
	refusedWith(t, "remove of one that left", err, codes.NotFound, "etcdserver: member not found")

	// One that stands still is reached no more; without it, another may not go.
	members.Without(leader)[1].Kill()
	var refused error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		_, refused = clusterOf(t, leader).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}})
		if refused != nil {
			break
		}
	}
	refusedWith(t, "add to a cluster that lacks a member", refused, codes.Unavailable, "etcdserver: unhealthy cluster")
}

// TestJoinByName: who was added is known by its place in the list; where others reach it was said when it was added, and what it
// advertises by default is another's.
func TestJoinByName(t *testing.T) {
	t.Parallel()
	first, added := harness.StartUnderTest(t), newLine(t)
	request := &pb.MemberAddRequest{PeerURLs: []string{added.peer}}
	answer, err := clusterOf(t, first).MemberAdd(harness.Context(t, 10*time.Second), request)
	if err != nil {
		t.Fatal(err)
	}
	// Until the second voter runs there is no quorum, which the first one finds out.
	maintenance := pb.NewMaintenanceClient(first.Conn(t))
	await(t, harness.Context(t, time.Minute), "the first member leads nobody", func() bool {
		return must(maintenance.Status(harness.Context(t, 10*time.Second), &pb.StatusRequest{}))(t).Leader == 0
	})
	data := filepath.Join(t.TempDir(), "m4")
	joined := harness.Start(t, harness.Options{DataDir: data, Endpoint: added.client, Line: []string{
		"--name=m4", "--data-dir=" + data, "--listen-client-urls=" + added.client, "--advertise-client-urls=" + added.client,
		"--listen-peer-urls=" + added.peer, "--initial-cluster=default=" + first.PeerURL() + ",m4=" + added.peer,
		"--initial-cluster-state=existing"}})
	putUntilTaken(t, joined, "/registry/a", "value")
	sameEverywhere(t, harness.Members{first, joined})
	listed, err := clusterOf(t, first).MemberList(harness.Context(t, 10*time.Second), &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		t.Fatal(err)
	}
	found := slices.IndexFunc(listed.Members, func(member *pb.Member) bool { return member.ID == answer.Member.ID })
	if found < 0 || listed.Members[found].Name != "m4" || !slices.Equal(listed.Members[found].PeerURLs, []string{added.peer}) {
		t.Errorf("the members are %v", listed.Members)
	}
}

// TestNotEnoughStarted: a third voter is refused while the second has not run, with the code that etcd's map gives it.
func TestNotEnoughStarted(t *testing.T) {
	const refusal = "etcdserver: re-configuration failed due to not enough started members"
	server := harness.StartUnderTest(t)
	add := func(port int) error {
		request := &pb.MemberAddRequest{PeerURLs: []string{fmt.Sprintf("http://127.0.0.1:%d", port)}}
		_, err := clusterOf(t, server).MemberAdd(harness.Context(t, 10*time.Second), request)
		return err
	}
	if err := add(1); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, "a third voter", add(2), codes.Unknown, refusal)
	response := must(http.Post(server.Endpoint()+"/v3/cluster/member/add", "application/json",
		strings.NewReader(`{"peerURLs":["http://127.0.0.1:2"]}`)))(t)
	defer response.Body.Close()
	if body := string(must(io.ReadAll(response.Body))(t)); response.StatusCode != http.StatusInternalServerError || !strings.Contains(body, refusal) {
		t.Errorf("a third voter by the gateway: %d %s", response.StatusCode, body)
	}
}

// TestJoinMistakes starts members that were not added, or as another than they were.
func TestJoinMistakes(t *testing.T) {
	kind := harness.UnderTest(t)
	first := harness.StartUnderTest(t)
	stranger := harness.Spare(t, kind, "stranger")
	stranger.JoinLater(harness.Members{first})
	if code := stranger.AwaitExit(); code == 0 {
		t.Error("a member that was not added ended with 0")
	}
	if kind == harness.Basalt {
		if line := stranger.LastLine(); !strings.Contains(line, "member count is unequal") || !strings.Contains(line, "member add") {
			t.Errorf("a member that was not added says: %s", line)
		}
	}
	lonely := harness.Spare(t, kind, "lonely")
	lonely.JoinLater(harness.Members{stranger})
	if code := lonely.AwaitExit(); code == 0 {
		t.Error("a member that reaches nobody ended with 0")
	}
	if kind == harness.Basalt {
		if line := lonely.LastLine(); !strings.Contains(line, "cannot fetch cluster info from peer urls") {
			t.Errorf("a member that reaches nobody says: %s", line)
		}
	}
	nameless := harness.Spare(t, kind, "nameless", "--name=another")
	nameless.JoinLater(harness.Members{first})
	if code := nameless.AwaitExit(); code != 1 || !nameless.LogContains("couldn't find local name") {
		t.Errorf("a member that is not listed by its name ended with %d", code)
	}
	putUntilTaken(t, first, "/registry/a", "value")
}
