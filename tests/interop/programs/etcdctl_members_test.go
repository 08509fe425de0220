package programs

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"basalt/tests/interop/harness"
)

type memberOf struct {
	id, state, name, peer, client, learner string
}

// membersOf reads the plain `member list`, by name.
func membersOf(t *testing.T, server *harness.Server) map[string]memberOf {
	t.Helper()
	members := map[string]memberOf{}
	for line := range strings.Lines(server.Etcdctl("member", "list")) {
		words := strings.Split(strings.TrimSpace(line), ", ")
		if len(words) != 6 {
			t.Fatalf("member list printed %q", line)
		}
		members[words[2]] = memberOf{words[0], words[1], words[2], words[3], words[4], words[5]}
	}
	return members
}

// leaderOf is the member that leads.
func leaderOf(t *testing.T, members harness.Members) *harness.Server {
	t.Helper()
	var leader *harness.Server
	await(t, "a leader", func() bool {
		var answers []struct {
			Endpoint string
			Status   struct {
				Leader uint64
				Header struct {
					Member uint64 `json:"member_id"`
				}
			}
		}
		text := members[0].Etcdctl("endpoint", "status", "--cluster", "-w", "json")
		if err := json.Unmarshal([]byte(text), &answers); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		for _, answer := range answers {
			for _, member := range members {
				if answer.Endpoint == member.Endpoint() && answer.Status.Leader == answer.Status.Header.Member {
					leader = member
				}
			}
		}
		return leader != nil
	})
	return leader
}

func tryMembers(t *testing.T) {
	kind := harness.UnderTest(t)
	members := harness.StartMembers(t, kind, 3)
	leader := leaderOf(t, members)
	leader.Etcdctl("put", "a", "1")
	for _, command := range []string{"health", "status", "hashkv"} {
		if rows := strings.Count(leader.Etcdctl("endpoint", command, "--cluster"), "\n"); command != "health" && rows != 3 {
			t.Errorf("endpoint %s --cluster printed %d lines", command, rows)
		}
	}
	if text := leader.Etcdctl("defrag", "--cluster"); strings.Count(text, "Finished defragmenting etcd member") != 3 {
		t.Errorf("defrag --cluster: %s", text)
	}

	var next *harness.Server
	for _, member := range members.Without(leader)[:1] {
		next = member
	}
	id := ""
	for _, member := range membersOf(t, leader) {
		if member.client == next.Endpoint() {
			id = member.id
		}
	}
	refused := next.EtcdctlResult("", "move-leader", id)
	if !strings.Contains(refused.Stderr, "no leader endpoint given at") || refused.Code == 0 {
		t.Errorf("move-leader at a follower: %+v", refused)
	}
	if text := leader.Etcdctl("move-leader", id); !strings.HasPrefix(text, "Leadership transferred from ") || !strings.Contains(text, id) {
		t.Errorf("move-leader: %s", text)
	}
	if now := leaderOf(t, members); now != next {
		t.Errorf("%s leads", now.Endpoint())
	}

	spare := harness.Spare(t, kind, "spare")
	added := ""
	// A leader that is new at it has not heard of all members yet.
	await(t, "a learner is added", func() bool {
		result := next.EtcdctlResult("", "member", "add", "spare", "--learner", "--peer-urls="+spare.PeerURL())
		added = result.Stdout
		return result.Code == 0
	})
	words := strings.Fields(added)
	if len(words) < 2 || !strings.Contains(added, `ETCD_NAME="spare"`) || !strings.Contains(added, `ETCD_INITIAL_CLUSTER_STATE="existing"`) {
		t.Fatalf("member add: %s", added)
	}
	if state := membersOf(t, next)[""]; state.state != "unstarted" || state.learner != "true" {
		t.Errorf("a member that has not started: %+v", state)
	}
	spare.Join(members)
	await(t, "the learner is promoted", func() bool {
		return next.EtcdctlResult("", "member", "promote", words[1]).Code == 0
	})
	if state := membersOf(t, next)["spare"]; state.state != "started" || state.learner != "false" || state.id != words[1] {
		t.Errorf("a member that was promoted: %+v", state)
	}
	moved := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	if text := next.Etcdctl("member", "update", words[1], "--peer-urls="+moved); !saysOf(text, words[1], "updated") {
		t.Errorf("member update: %s", text)
	}
	if state := membersOf(t, next)["spare"]; state.peer != moved {
		t.Errorf("a member that has moved: %+v", state)
	}
	if text := next.Etcdctl("member", "remove", words[1]); !saysOf(text, words[1], "removed") {
		t.Errorf("member remove: %s", text)
	}
	if len(membersOf(t, next)) != 3 {
		t.Errorf("members: %v", membersOf(t, next))
	}

	expectText(t, "downgrade validate", next.Etcdctl("downgrade", "validate", "3.6"), "Downgrade validate success, cluster version 3.7")
	expectText(t, "downgrade enable", next.Etcdctl("downgrade", "enable", "3.6"), "Downgrade enable success, cluster version 3.7")
	if text := next.Etcdctl("downgrade", "cancel"); !strings.HasPrefix(text, "Downgrade cancel success, cluster version 3.") {
		t.Errorf("downgrade cancel: %s", text)
	}
}

// saysOf reads `Member ID updated in cluster ID`, which fills a short id up with spaces.
func saysOf(text, id, what string) bool {
	words := strings.Fields(text)
	return len(words) > 3 && words[0] == "Member" && words[1] == id && words[2] == what
}

func trySnapshots(t *testing.T) {
	server := harness.StartUnderTest(t)
	put(t, server, "a", "1")
	path := filepath.Join(t.TempDir(), "file.db")
	if text := server.Etcdctl("snapshot", "save", path); !strings.Contains(text, "Snapshot saved at "+path) {
		t.Errorf("snapshot save: %s", text)
	}
	if again := server.EtcdctlResult("", "snapshot", "save", filepath.Join(path, "nowhere")); again.Code == 0 {
		t.Errorf("snapshot save to no directory: %+v", again)
	}
}
