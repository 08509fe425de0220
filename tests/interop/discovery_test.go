package interop

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// founder is a member without data that is told where to ask for the others.
type founder struct{ name, client, peer string }

// newFounders have peer URLs with these hosts, which lead to the loopback.
func newFounders(t *testing.T, hosts ...string) []founder {
	t.Helper()
	var founders []founder
	for n, host := range hosts {
		founders = append(founders, founder{
			name:   fmt.Sprintf("f%d", n),
			client: fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t)),
			peer:   fmt.Sprintf("http://%s:%d", host, harness.FreePort(t)),
		})
	}
	return founders
}

func (f founder) peerPort() string { return f.peer[strings.LastIndex(f.peer, ":")+1:] }

func (f founder) args(dataDir string, discovery ...string) []string {
	return append([]string{
		"--name=" + f.name, "--data-dir=" + dataDir, "--listen-client-urls=" + f.client, "--advertise-client-urls=" + f.client,
		"--listen-peer-urls=http://127.0.0.1:" + f.peerPort(), "--initial-advertise-peer-urls=" + f.peer,
	}, discovery...)
}

// startLater starts it with a fresh directory, without waiting for it.
func (f founder) startLater(t *testing.T, kind harness.Kind, wrapper []string, discovery ...string) *harness.Server {
	t.Helper()
	dataDir := filepath.Join(t.TempDir(), f.name)
	line := f.args(dataDir, discovery...)
	return harness.StartLater(t, harness.Options{Kind: kind, DataDir: dataDir, Line: line, Endpoint: f.client, Wrapper: wrapper})
}

// foundedCluster is who a cluster says it is.
type foundedCluster struct {
	ID      uint64
	Members map[string]foundedMember
}

type foundedMember struct {
	ID       uint64
	PeerURLs string
}

func foundedAs(t *testing.T, server *harness.Server) foundedCluster {
	t.Helper()
	list := decode[struct {
		Header struct {
			ClusterID uint64 `json:"cluster_id"`
		}
		Members []struct {
			ID       uint64
			Name     string
			PeerURLs []string
		}
	}](t, server.Etcdctl("member", "list", "-w", "json"))
	found := foundedCluster{ID: list.Header.ClusterID, Members: map[string]foundedMember{}}
	for _, member := range list.Members {
		found.Members[member.Name] = foundedMember{ID: member.ID, PeerURLs: strings.Join(member.PeerURLs, ",")}
	}
	return found
}

// foundCluster starts all founders, looks at what they become, lets one restart, and stops them.
func foundCluster(t *testing.T, kind harness.Kind, founders []founder, wrapper []string, discovery ...string) (foundedCluster, []*harness.Server) {
	t.Helper()
	var members []*harness.Server
	for _, founder := range founders {
		members = append(members, founder.startLater(t, kind, wrapper, discovery...))
	}
	for _, member := range members {
		member.AwaitReady()
	}
	members[0].Etcdctl("put", "a", "1")
	expectText(t, "get through another member", members[len(members)-1].Etcdctl("get", "a"), "a", "1")
	// A member is known by name when it has said it, and by the id that it has before.
	var cluster foundedCluster
	await(t, harness.Context(t, time.Minute), "all members have names", func() bool {
		cluster = foundedAs(t, members[0])
		for _, founder := range founders {
			if _, ok := cluster.Members[founder.name]; !ok {
				return false
			}
		}
		return true
	})
	if len(cluster.Members) != len(founders) {
		t.Errorf("%s: the cluster is %+v", kind, cluster)
	}
	return cluster, members
}

// kindsSideBySide are genuine etcd and, if it is another, the server under test.
func kindsSideBySide(t *testing.T) []harness.Kind {
	return slices.Compact([]harness.Kind{harness.Etcd, harness.UnderTest(t)})
}

func expectSame(t *testing.T, clusters map[harness.Kind]foundedCluster) {
	t.Helper()
	expected := clusters[harness.Etcd]
	for kind, found := range clusters {
		if found.ID != expected.ID || !maps.Equal(found.Members, expected.Members) {
			t.Errorf("%s is another cluster than etcd's: %+v, want %+v", kind, found, expected)
		}
	}
}

// TestDiscoveryByService: members of each kind find each other through a genuine etcd, under the same ids; one too many is
// refused, and one that has data asks nobody.
func TestDiscoveryByService(t *testing.T) {
	service := harness.Start(t, harness.Options{Kind: harness.Etcd})
	const token = "a-token"
	service.Etcdctl("put", "/_etcd/registry/"+token+"/_config/size", "3")
	// Nobody is there at the first one.
	endpoints := fmt.Sprintf("127.0.0.1:%d,%s", harness.FreePort(t), service.Target())
	discovery := []string{"--discovery-token=" + token, "--discovery-endpoints=" + endpoints, "--initial-cluster-token=ignored"}
	founders := newFounders(t, "127.0.0.1", "127.0.0.1", "127.0.0.1")
	late := newFounders(t, "127.0.0.1")[0]
	late.name = "late"
	clusters, registrations := map[harness.Kind]foundedCluster{}, map[harness.Kind]string{}
	for _, kind := range kindsSideBySide(t) {
		service.Etcdctl("del", "--prefix", "/_etcd/registry/"+token+"/members")
		var members []*harness.Server
		clusters[kind], members = foundCluster(t, kind, founders, nil, discovery...)
		registrations[kind] = service.Etcdctl("get", "--prefix", "/_etcd/registry/"+token+"/members")

		refused := harness.RunToEnd(t, harness.Launch{Kind: kind, Args: late.args(filepath.Join(t.TempDir(), "late"), discovery...)})
		said := refused.Stdout + refused.Stderr
		for _, part := range []string{"discovery: cluster is full", "failed to bootstrap; discovery token was already used", "do not reuse discovery token"} {
			if refused.Code != 1 || !strings.Contains(said, part) {
				t.Errorf("%s: a fourth member ends with %d and does not say %q:\n%s", kind, refused.Code, part, said)
			}
		}

		members[1].Stop()
		members[1].Restart()
		if !members[1].LogContains("discovery token is ignored since cluster already initialized") {
			t.Errorf("%s: a member with data does not say that it asks nobody", kind)
		}
		expectText(t, "get after a restart", members[1].Etcdctl("get", "a"), "a", "1")
		for _, member := range members {
			member.Kill()
		}
	}
	expectSame(t, clusters)
	for kind, registered := range registrations {
		if registered != registrations[harness.Etcd] {
			t.Errorf("%s registers as\n%swant\n%s", kind, registered, registrations[harness.Etcd])
		}
	}
}

// TestDiscoveryOfMixedKinds: each kind reads what the other registers. They found no cluster together, for their logs are not
// alike; both find the same members.
func TestDiscoveryOfMixedKinds(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("needs both kinds")
	}
	service := harness.Start(t, harness.Options{Kind: harness.Etcd})
	service.Etcdctl("put", "/_etcd/registry/mixed/_config/size", "2")
	discovery := []string{"--discovery-token=mixed", "--discovery-endpoints=" + service.Target()}
	founders := newFounders(t, "127.0.0.1", "127.0.0.1")
	members := []*harness.Server{
		founders[0].startLater(t, harness.Etcd, nil, discovery...), founders[1].startLater(t, harness.Basalt, nil, discovery...),
	}
	await(t, harness.Context(t, time.Minute), "both found the other", func() bool {
		return !slices.ContainsFunc(members, func(member *harness.Server) bool {
			return !member.LogContains("discovery joined cluster successfully")
		})
	})
	for _, member := range members {
		line := member.LinesWith("discovery joined cluster successfully")[0]
		for _, founder := range founders {
			if !strings.Contains(line, founder.name+"="+founder.peer) {
				t.Errorf("%s does not find %+v: %s", member.Kind, founder, line)
			}
		}
	}
}

// TestDiscoveryRefusals: what trying again does not mend ends the start, in etcd's words.
func TestDiscoveryRefusals(t *testing.T) {
	service := harness.Start(t, harness.Options{Kind: harness.Etcd})
	service.Etcdctl("put", "/_etcd/registry/bad/_config/size", "many")
	service.Etcdctl("put", "/_etcd/registry/url/_config/size", "1")
	service.Etcdctl("put", "/_etcd/registry/joins/_config/size", "1")
	// Who came first has the place, whatever it is.
	service.Etcdctl("put", "/_etcd/registry/junk/_config/size", "2")
	service.Etcdctl("put", "/_etcd/registry/junk/members/1", "junk=nowhere")
	service.Etcdctl("put", "/_etcd/registry/twice/_config/size", "2")
	founder := newFounders(t, "127.0.0.1")[0]
	service.Etcdctl("put", "/_etcd/registry/twice/members/1", "other="+founder.peer)
	endpoints := "--discovery-endpoints=" + service.Target()
	for _, refusal := range []struct {
		says string
		args []string
	}{
		{"discovery: size key not found", []string{"--discovery-token=absent", endpoints}},
		{"discovery: size key is bad", []string{"--discovery-token=bad", endpoints}},
		{"discovery: invalid peer URL", []string{"--discovery-token=junk", endpoints}},
		{"has duplicate url", []string{"--discovery-token=twice", endpoints}},
		{"discovery URL should not be set when joining existing initial cluster",
			[]string{"--discovery-token=joins", endpoints, "--initial-cluster-state=existing"}},
		{"multiple discovery or bootstrap flags are set", []string{"--discovery-token=url", endpoints, "--discovery-srv=example.org"}},
		{"multiple discovery or bootstrap flags are set", []string{"--discovery-token=url", endpoints, "--initial-cluster=f0=" + founder.peer}},
		{"both --discovery-token and --discovery-endpoints must be set", []string{endpoints}},
		{"--discovery-endpoints must not contain empty endpoints", []string{"--discovery-token=url", endpoints + ","}},
	} {
		for _, kind := range kindsSideBySide(t) {
			dataDir := filepath.Join(t.TempDir(), "data")
			end := harness.RunToEnd(t, harness.Launch{Kind: kind, Args: founder.args(dataDir, refusal.args...)})
			if said := end.Stdout + end.Stderr; end.Code != 1 || !strings.Contains(said, refusal.says) {
				t.Errorf("%s %v: exit %d, does not say %q:\n%s", kind, refusal.args, end.Code, refusal.says, said)
			}
			if kind == harness.Basalt {
				expectRefused(t, end, 1, refusal.says)
			}
		}
	}
}
