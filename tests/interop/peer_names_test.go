package interop

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

const notAdvertised = "but missing from --initial-advertise-peer-urls="

// expectElsewhere: a founder is refused that is listed at a URL which does not lead to where it advertises.
func expectElsewhere(t *testing.T, kind harness.Kind, wrapper []string, listed func(founder) string) {
	t.Helper()
	founder := newFounders(t, "127.0.0.1")[0]
	refused := founder.startLater(t, kind, wrapper, "--initial-cluster="+founder.name+"="+listed(founder))
	if code := refused.AwaitExit(); code != 1 || !refused.LogContains("--initial-cluster has "+founder.name+"="+listed(founder)+" "+notAdvertised) {
		t.Errorf("%s: a member that is listed at %s ends with %d", kind, listed(founder), code)
	}
}

// TestLocalhostIsNoAddress: whatever it leads to, it is looked up by neither.
func TestLocalhostIsNoAddress(t *testing.T) {
	for _, kind := range kindsSideBySide(t) {
		expectElsewhere(t, kind, nil, func(f founder) string { return "http://localhost:" + f.peerPort() })
	}
}

// TestPeersAreKnownByWhereTheirNamesLead: members may be listed by names where others have addresses, at the first start and where
// they join; the cluster goes on knowing them as it was told.
func TestPeersAreKnownByWhereTheirNamesLead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a mount namespace with a /etc/resolv.conf of its own, and a DNS server at port 53")
	}
	address := nameserver(t)
	zone{hosts: map[string]bool{"f0.example.test.": true, "f1.example.test.": true}}.serve(t, net.JoinHostPort(address, "53"))
	wrapper := asking(t, address)
	for _, kind := range kindsSideBySide(t) {
		founders := newFounders(t, "127.0.0.1", "127.0.0.1")
		first, second := founders[0], founders[1]
		byName := func(f founder) string { return "http://" + f.name + ".example.test:" + f.peerPort() }

		server := first.startLater(t, kind, wrapper, "--initial-cluster=f0="+byName(first))
		server.AwaitReady()
		request := &pb.MemberAddRequest{PeerURLs: []string{second.peer}}
		if _, err := clusterOf(t, server).MemberAdd(harness.Context(t, 10*time.Second), request); err != nil {
			t.Fatal(err)
		}
		// The one is listed by its address, the other by its name, where the cluster has it the other way round.
		cluster := "f0=" + first.peer + ",f1=" + byName(second)
		joined := second.startLater(t, kind, wrapper, "--initial-cluster="+cluster, "--initial-cluster-state=existing")
		joined.AwaitReady()
		putUntilTaken(t, joined, "/registry/a", "value")
		sameEverywhere(t, harness.Members{server, joined})
		await(t, harness.Context(t, time.Minute), "the new member has its name", func() bool {
			_, ok := foundedAs(t, server).Members["f1"]
			return ok
		})
		for name, url := range map[string]string{"f0": byName(first), "f1": second.peer} {
			if found := foundedAs(t, joined).Members[name].PeerURLs; found != url {
				t.Errorf("%s: %s is known at %s, want %s", kind, name, found, url)
			}
		}
		expectElsewhere(t, kind, wrapper, func(f founder) string { return strings.Replace(byName(f), f.peerPort(), "1", 1) })
	}
}
