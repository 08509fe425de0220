package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"google.golang.org/grpc/codes"

	"basalt/tests/interop/harness"
)

// memberRow is a row of `basaltctl status -w json`.
type memberRow struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Endpoint string   `json:"endpoint"`
	Role     string   `json:"role"`
	Version  *string  `json:"version"`
	Term     *uint64  `json:"term"`
	Index    *uint64  `json:"index"`
	Applied  *uint64  `json:"applied"`
	Lag      *uint64  `json:"lag"`
	DBSize   *int64   `json:"db_size"`
	SyncP99  *float64 `json:"sync_p99_ms"`
	Errors   []string `json:"errors"`
}

// ctl runs basaltctl and fails the test unless that succeeds.
func ctl(t *testing.T, args ...string) harness.Result {
	t.Helper()
	result := harness.Basaltctl(t, args...)
	if result.Code != 0 {
		t.Fatalf("basaltctl %s: exit %d\n%s%s", strings.Join(args, " "), result.Code, result.Stdout, result.Stderr)
	}
	return result
}

func statusRows(t *testing.T, flags ...string) map[string]memberRow {
	t.Helper()
	var rows []memberRow
	output := ctl(t, append([]string{"status", "-w", "json"}, flags...)...).Stdout
	if err := json.Unmarshal([]byte(output), &rows); err != nil {
		t.Fatalf("%v in %s", err, output)
	}
	byID := map[string]memberRow{}
	for _, row := range rows {
		byID[row.ID] = row
	}
	return byID
}

func needsBasaltctl(t *testing.T) {
	t.Helper()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("basaltctl is basalt's")
	}
}

// TestBasaltctlStatus asks a whole cluster, also one that lacks a member and a quorum.
func TestBasaltctlStatus(t *testing.T) {
	needsBasaltctl(t)
	members := harness.StartMembers(t, harness.Basalt, 3)
	for n := range 20 {
		putUntilTaken(t, members[n%3], fmt.Sprintf("/registry/pods/%d", n), "value")
	}
	leader := leaderOf(t, members)
	rows := statusRows(t, "--endpoints="+members[0].Target())
	if len(rows) != 3 {
		t.Fatalf("%d rows for three members: %v", len(rows), rows)
	}
	for _, member := range members {
		row, role := rows[fmt.Sprintf("%x", idOf(t, member))], "follower"
		if member == leader {
			role = "leader"
		}
		if row.Role != role || row.Endpoint != member.Endpoint() || row.Name == "" || row.Version == nil || *row.Version != "3.7.3" {
			t.Errorf("a row of %s: %+v, want a %s", member.Endpoint(), row, role)
		}
		if row.Term == nil || *row.Term == 0 || row.Applied == nil || *row.Applied == 0 || row.Lag == nil || row.DBSize == nil || *row.DBSize == 0 {
			t.Errorf("a row without figures: %+v", row)
		}
		if row.SyncP99 == nil || *row.SyncP99 <= 0 {
			t.Errorf("no sync time of %s: %+v", member.Endpoint(), row)
		}
	}
	members.Without(leader)[0].Kill()
	gone := fmt.Sprintf("%x", 0)
	for id, row := range statusRows(t, "--endpoints="+members.Endpoints(), "--command-timeout=3") {
		if row.Role == "unreachable" {
			gone = id
			if len(row.Errors) != 1 || row.Endpoint != members.Without(leader)[0].Endpoint() {
				t.Errorf("a member that is gone: %+v", row)
			}
		}
	}
	if gone == "0" {
		t.Error("no row says that a member is gone")
	}
	members.Without(leader)[1].Kill()
	await(t, harness.Context(t, 30*time.Second), "nobody to lead", func() bool {
		for _, row := range statusRows(t, "--endpoints="+leader.Target(), "--command-timeout=2") {
			if strings.Contains(strings.Join(row.Errors, " "), "etcdserver: no leader") {
				return true
			}
		}
		return false
	})
	text := ctl(t, "status", "-w", "table", "--endpoints="+leader.Target(), "--command-timeout=2").Stdout
	if !strings.Contains(text, "| ID ") || !strings.Contains(text, "SYNC P99 MS") {
		t.Errorf("a table:\n%s", text)
	}
	leader.Kill()
	if result := harness.Basaltctl(t, "status", "--endpoints="+members.Endpoints(), "--command-timeout=2"); result.Code != 1 || !strings.Contains(result.Stderr, "no member answers") {
		t.Errorf("nobody answers: exit %d %s", result.Code, result.Stderr)
	}
}

// TestBasaltctlReplace replaces a lost member by another: removed, added as a learner, started, promoted (the runbook
// docs/operations/lost-member.md).
func TestBasaltctlReplace(t *testing.T) {
	t.Parallel()
	needsBasaltctl(t)
	members := harness.StartMembers(t, harness.Basalt, 3)
	for n := range 50 {
		putUntilTaken(t, members[0], fmt.Sprintf("/registry/pods/%d", n), "value")
	}
	lost := members.Without(leaderOf(t, members))[0]
	id := fmt.Sprintf("%x", idOf(t, lost))
	lost.Kill()
	left := members.Without(lost)
	spare := harness.Spare(t, harness.Basalt, "spare")
	ended := make(chan harness.Result, 1)
	go func() {
		ended <- harness.Basaltctl(t, "member", "replace", id, "spare", "--peer-urls="+spare.PeerURL(), "--endpoints="+left.Endpoints(), "--wait-timeout=120")
	}()
	await(t, harness.Context(t, time.Minute), "the new member to be known", func() bool {
		listed, err := clusterOf(t, left[0]).MemberList(harness.Context(t, 10*time.Second), &pb.MemberListRequest{})
		if err != nil {
			return false
		}
		for _, member := range listed.Members {
			if len(member.PeerURLs) == 1 && member.PeerURLs[0] == spare.PeerURL() {
				return len(listed.Members) == 3
			}
		}
		return false
	})
	spare.Join(left)
	result := <-ended
	if result.Code != 0 || !strings.Contains(result.Stdout, "Member "+id+" replaced by ") || !strings.Contains(result.Stderr, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"") {
		t.Fatalf("replace: exit %d\n%s%s", result.Code, result.Stdout, result.Stderr)
	}
	now := append(left, spare)
	sameEverywhere(t, now)
	for _, row := range statusRows(t, "--endpoints="+now.Endpoints()) {
		if row.Role != "leader" && row.Role != "follower" {
			t.Errorf("after the replacement: %+v", row)
		}
	}
	listed := ctl(t, "member", "list", "--endpoints="+now.Endpoints()).Stdout
	if strings.Count(listed, "\n") != 3 || strings.Contains(listed, id) || !strings.Contains(listed, ", started, spare, ") {
		t.Errorf("members after the replacement:\n%s", listed)
	}
	// Single steps, and what the cluster refuses.
	added := ctl(t, "member", "add", "later", "--learner", "--peer-urls=http://127.0.0.1:1", "--endpoints="+now.Endpoints()).Stdout
	later, _, _ := strings.Cut(strings.TrimPrefix(added, "Member "), " ")
	if _, err := strconv.ParseUint(later, 16, 64); err != nil {
		t.Fatalf("member add: %s", added)
	}
	if refused := harness.Basaltctl(t, "member", "promote", later, "--endpoints="+now.Endpoints()); refused.Code != 1 || !strings.Contains(refused.Stderr, "in sync with leader") {
		t.Errorf("promote of a learner that does not run: %+v", refused)
	}
	ctl(t, "member", "remove", later, "--endpoints="+now.Endpoints())
	if refused := harness.Basaltctl(t, "member", "remove", later, "--endpoints="+now.Endpoints()); refused.Code != 1 || !strings.Contains(refused.Stderr, "etcdserver: member not found") {
		t.Errorf("remove of nobody: %+v", refused)
	}
}

// TestReseed damages a member in three ways; one command and a start with its usual flags give it the data of the others (the
// runbook docs/operations/corrupt-member.md).
func TestReseed(t *testing.T) {
	t.Parallel()
	needsBasaltctl(t)
	for _, damaged := range []string{"log", "manifest", "index", "page"} {
		t.Run(damaged, func(t *testing.T) {
			members := harness.StartMembers(t, harness.Basalt, 3)
			for n := range 200 {
				putUntilTaken(t, members[n%3], fmt.Sprintf("/registry/pods/%d", n), "value")
			}
			sameEverywhere(t, members)
			bad := members.Without(leaderOf(t, members))[0]
			id := fmt.Sprintf("%x", idOf(t, bad))
			others := members.Without(bad)
			bad.Stop()
			damage(t, bad.DataDir, damaged)
			if damaged == "page" {
				foundDamagedByARead(t, bad)
			} else {
				bad.RestartLater()
				if code := bad.AwaitExit(); code == 0 {
					t.Fatal("a member with damaged data ended with 0")
				}
				if line := bad.LastLine(); !strings.Contains(line, "basaltctl reseed") {
					t.Errorf("the last line does not name the way out: %s", line)
				}
			}
			reseed := []string{"reseed", "--data-dir=" + bad.DataDir, "--endpoints=" + others.Endpoints(), "--wait-timeout=120"}
			if damaged == "manifest" {
				if refused := harness.Basaltctl(t, reseed...); refused.Code != 1 || !strings.Contains(refused.Stderr, "--member ID") {
					t.Errorf("a directory that does not say whose it is: %+v", refused)
				}
				reseed = append(reseed, "--member="+id)
			}
			// Stopped half way, and begun again, twice.
			ctl(t, append(reseed, "--no-wait")...)
			ctl(t, append(reseed, "--no-wait")...)
			ended := make(chan harness.Result, 1)
			bad.RestartLater()
			go func() { ended <- harness.Basaltctl(t, reseed...) }()
			bad.AwaitReady()
			result := <-ended
			if result.Code != 0 || !strings.Contains(result.Stdout, "has the data of the others and votes") {
				t.Fatalf("reseed: exit %d\n%s%s", result.Code, result.Stdout, result.Stderr)
			}
			putUntilTaken(t, bad, "/registry/after", "value")
			sameEverywhere(t, members)
			aside, err := filepath.Glob(filepath.Join(bad.DataDir, "reseeded-*", "*"))
			if err != nil || len(aside) == 0 {
				t.Errorf("the old data is not there: %v %v", aside, err)
			}
			for _, row := range statusRows(t, "--endpoints="+members.Endpoints()) {
				if row.ID == id || row.Role != "leader" && row.Role != "follower" {
					t.Errorf("after the re-seeding: %+v", row)
				}
			}
			// It is what it is from now on.
			bad.Kill()
			bad.Restart()
			putUntilTaken(t, bad, "/registry/after", "again")
			sameEverywhere(t, members)
		})
	}
}

// foundDamagedByARead starts a member with a damaged value, which nothing reads at a start. The read that finds it fails, and from
// then on the member is not ready, and says why.
func foundDamagedByARead(t *testing.T, bad *harness.Server) {
	t.Helper()
	bad.Restart()
	read := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: true}
	_, err := pb.NewKVClient(bad.Conn(t)).Range(harness.Context(t, 10*time.Second), read)
	refusedWith(t, "a read of damaged values", err, codes.DataLoss, "basalt: stored data is damaged; see the server's log")
	if text := expectPageStatus(t, bad, "/readyz", http.StatusServiceUnavailable); !strings.Contains(text, "[-]data_corruption failed") || !strings.Contains(text, "basaltctl reseed") {
		t.Errorf("/readyz of a damaged member: %s", text)
	}
	id, said := fmt.Sprintf("%x", idOf(t, bad)), ""
	for _, row := range statusRows(t, "--endpoints="+bad.Target()) {
		if row.ID == id {
			said = strings.Join(row.Errors, " ")
		}
	}
	if !strings.Contains(said, "stored data is damaged") {
		t.Errorf("the status of a damaged member: %q", said)
	}
	if !bad.LogContains("basaltctl reseed") {
		t.Error("the log does not name the way out")
	}
	bad.Kill()
}

// damage flips bits of a stopped member's data: where a start looks, or in pages, which only reads look at.
func damage(t *testing.T, directory, what string) {
	t.Helper()
	pattern := map[string]string{"log": "wal/*", "manifest": "manifest", "index": "runs/*", "page": "pages/*"}[what]
	files, err := filepath.Glob(filepath.Join(directory, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s in %s: %v", pattern, directory, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for n := range content {
			if n%64 == 0 {
				content[n] ^= 0xff
			}
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
