package interop

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// TestHealthOfMembers asks every member for its health: with a quorum, without one before and after it is noticed, and a learner.
// What asks the cluster fails on whoever is cut off; what asks the member alone does not.
func TestHealthOfMembers(t *testing.T) {
	t.Parallel()
	kind := harness.UnderTest(t)
	members := harness.StartMembers(t, kind, 3)
	leader := leaderOf(t, members)
	for _, member := range members {
		for _, page := range []string{"/health", "/health?serializable=true", "/livez", "/readyz", "/readyz/linearizable_read"} {
			expectPageStatus(t, member, page, http.StatusOK)
		}
	}
	spare := harness.Spare(t, kind, "spare")
	addMember(t, leader, spare, true)
	spare.Join(members)
	expectPageStatus(t, spare, "/health", http.StatusOK)
	expectPageStatus(t, spare, "/readyz/linearizable_read", http.StatusOK)
	if text := expectPageStatus(t, spare, "/readyz", http.StatusServiceUnavailable); !strings.Contains(text, "[-]non_learner failed") {
		t.Errorf("/readyz of a learner: %s", text)
	}
	spare.Kill()

	follower := members.Without(leader)[0]
	others := members.Without(follower)
	for _, member := range others {
		member.Pause()
	}
	// The follower knows a leader yet, but has nobody's consent.
	if text := expectPageStatus(t, follower, "/health", http.StatusServiceUnavailable); !strings.Contains(text, "RANGE ERROR:") && !strings.Contains(text, "RAFT NO LEADER") {
		t.Errorf("/health of a member alone: %s", text)
	}
	expectPageStatus(t, follower, "/health?serializable=true", http.StatusOK)
	expectPageStatus(t, follower, "/livez", http.StatusOK)
	if text := expectPageStatus(t, follower, "/readyz", http.StatusServiceUnavailable); !strings.Contains(text, "[-]linearizable_read failed") || !strings.Contains(text, "[+]serializable_read ok") {
		t.Errorf("/readyz of a member alone: %s", text)
	}
	await(t, harness.Context(t, 30*time.Second), "/health to say that nobody leads", func() bool {
		_, text := httpGet(t, newClient(nil, false), follower.Endpoint()+"/health")
		return strings.Contains(text, "RAFT NO LEADER")
	})
	for _, member := range others {
		member.Resume()
	}
	for _, member := range members {
		await(t, harness.Context(t, 30*time.Second), "/health to be well again", func() bool {
			response, _ := httpGet(t, newClient(nil, false), member.Endpoint()+"/health")
			return response.StatusCode == http.StatusOK
		})
	}
}

// expectStatus fails unless a page has that status; it gives the body.
func expectPageStatus(t *testing.T, member *harness.Server, page string, code int) string {
	t.Helper()
	response, text := httpGet(t, newClient(nil, false), member.Endpoint()+page)
	if response.StatusCode != code {
		t.Errorf("%s of %s: %d %s, want %d", page, member.Endpoint(), response.StatusCode, text, code)
	}
	return text
}
