package differential

import (
	"os"
	"testing"

	"basalt/tests/interop/harness"
)

// shardMaps are the maps that the server under test is born with, by the number of their shards.
var shardMaps = map[int]string{
	1: "main",
	3: "main;events=/registry/events/;leases=/registry/leases/,/registry/masterleases/",
	8: "main;events=/registry/events/;leases=/registry/leases/,/registry/masterleases/;pods=/registry/pods/;" +
		"default-pods=/registry/pods/default/;widgets=/registry/example.com/;nodes=/registry/minions/;short=a/",
}

// pair is genuine etcd and the server under test, with connections to both.
type pair struct {
	t       testing.TB
	servers [2]*harness.Server
	sides   [2]*side
}

// startPair starts both empty; args are flags for both.
func startPair(t testing.TB, shards int, args ...string) *pair {
	t.Helper()
	args = append([]string{"--bcrypt-cost=4"}, args...)
	tested := harness.Options{Args: args}
	if harness.UnderTest(t) == harness.Basalt {
		tested.Args = append([]string{"--basalt-initial-shards=" + shardMaps[shards]}, args...)
	}
	p := &pair{t: t, servers: [2]*harness.Server{
		harness.Start(t, harness.Options{Kind: harness.Etcd, Args: args}), harness.Start(t, tested),
	}}
	p.connect()
	return p
}

func (p *pair) connect() {
	p.t.Helper()
	for n, name := range [2]string{"genuine etcd", string(p.servers[1].Kind) + " under test"} {
		p.sides[n] = newSide(p.t, name, p.servers[n])
	}
}

func (p *pair) disconnect() {
	for _, side := range p.sides {
		side.close()
	}
}

// restart ends both processes and starts them again on their data.
func (p *pair) restart(how string) {
	p.t.Helper()
	p.disconnect()
	if how == restartStreams {
		p.connect()
		return
	}
	for _, server := range p.servers {
		if how == restartKill && server.Running() {
			server.Kill()
		} else {
			server.Stop()
		}
		server.Restart()
	}
	p.connect()
}

// close ends both and removes their data.
func (p *pair) close() {
	p.t.Helper()
	p.disconnect()
	for _, server := range p.servers {
		if server.Running() {
			server.Kill()
		} else {
			p.t.Errorf("%s has ended by itself", server.Kind)
		}
		if err := os.RemoveAll(server.DataDir); err != nil {
			p.t.Errorf("remove the data of %s: %v", server.Kind, err)
		}
	}
}
