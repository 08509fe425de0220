package programs

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"basalt/tests/interop/harness"
)

func freeAddress(t *testing.T) string { return "127.0.0.1:" + strconv.Itoa(harness.FreePort(t)) }

// startFront runs etcd's own proxy or gateway, which then is a server to etcdctl and to clients.
func startFront(t *testing.T, address string, line ...string) *harness.Server {
	t.Helper()
	front := harness.StartLater(t, harness.Options{
		Kind: harness.Etcd, Endpoint: "http://" + address, WorkDir: t.TempDir(),
		Line: slices.Concat(line, []string{"--listen-addr=" + address}),
	})
	await(t, "the proxy listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return front
}

// startProxy runs `etcd grpc-proxy` before a server.
func startProxy(t *testing.T, server *harness.Server, flags ...string) *harness.Server {
	t.Helper()
	address := freeAddress(t)
	// It asks itself at the address that it advertises how it is.
	line := []string{"grpc-proxy", "start", "--endpoints=" + server.Endpoint(), "--data-dir=" + filepath.Join(t.TempDir(), "proxy"), "--advertise-client-url=" + address}
	return startFront(t, address, append(line, flags...)...)
}

// startGateway runs `etcd gateway` before servers.
func startGateway(t *testing.T, servers ...*harness.Server) *harness.Server {
	t.Helper()
	var targets []string
	for _, server := range servers {
		targets = append(targets, server.Target())
	}
	return startFront(t, freeAddress(t), "gateway", "start", "--retry-delay=100ms", "--endpoints="+strings.Join(targets, ","))
}

// throughFront is what is asked through each of them, of genuine etcd and of the server under test.
func throughFront() []step {
	script := lines(`
		put a 1
		put a 2 --prev-kv
		put b 3 -w json
		get a -w json
		get a -w json
		get a --rev=2
		get a --rev=99
		get --prefix "" --count-only -w fields
		get a z --sort-by=MODIFY --order=DESCEND
		get a --consistency=s
		put a 4
		get a --consistency=s
		del b --prev-kv
		del b
		compaction 3
		get a --rev=2
		put x y --lease=1234
		alarm list
		member list
		endpoint health
		endpoint status
		endpoint hashkv
		defrag
		lease list
	`)
	return slices.Concat(script, []step{
		{line: "txn", stdin: "value(\"a\") = \"4\"\n\nput c 1\nget a\ndel a\n\nput never x\n\n"},
		{line: "txn", stdin: "\nput a 1\nput a 2\n\n\n"},
		{line: "lease grant 500", keep: "lease"},
	}, lines(`
		put leased 1 --lease=$lease
		lease timetolive $lease --keys
		lease keep-alive --once $lease
		lease revoke $lease
		lease timetolive $lease
		get leased -w json
		role add reader
		role grant-permission reader read r/ --prefix
		role get reader
		user add ann:word
		user grant-role ann reader
		user add root:secret
		user grant-role root root
		user list
		auth enable
		get r/a
		--user=ann:word get r/a
		--user=ann:word get a
		--user=ann:wrong get a
		--user=ann:word put r/a 1
		--user=root:secret put r/a 1
		--user=ann:word get r/a
		--user=root:secret auth status
		--user=root:secret auth disable
		get r/a
	`))
}

// useEverything is what clients do through a proxy: keys, a watch, a lease with its keep-alive, a lock and an election.
func useEverything(t *testing.T, front *harness.Server) {
	t.Helper()
	client, ctx := front.Client(t), harness.Context(t, waitMax)
	fail := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	events := client.Watch(ctx, "used/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if created := <-events; !created.Created {
		t.Fatalf("the first answer of a watch: %+v", created)
	}
	lease, err := client.Grant(ctx, 600)
	fail("grant", err)
	alive, err := client.KeepAlive(ctx, lease.ID)
	fail("keep alive", err)
	if answer := <-alive; answer == nil || answer.TTL != 600 {
		t.Fatalf("keep-alive: %v", answer)
	}
	_, err = client.Put(ctx, "used/a", "1", clientv3.WithLease(lease.ID))
	fail("put", err)
	swapped, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Value("used/a"), "=", "1")).
		Then(clientv3.OpPut("used/a", "2"), clientv3.OpPut("used/b", "2", clientv3.WithLease(lease.ID))).Commit()
	fail("txn", err)
	if !swapped.Succeeded {
		t.Fatal("the transaction has not found its value")
	}
	_, err = client.Revoke(ctx, lease.ID)
	fail("revoke", err)
	expectEvents(t, ctx, events, "PUT used/a=1", "PUT used/a=2", "PUT used/b=2", "DELETE used/b=")

	session, err := concurrency.NewSession(client, concurrency.WithTTL(60))
	fail("session", err)
	mutex := concurrency.NewMutex(session, "lock")
	fail("lock", mutex.Lock(ctx))
	other, err := concurrency.NewSession(client, concurrency.WithTTL(60))
	fail("second session", err)
	if err := concurrency.NewMutex(other, "lock").TryLock(ctx); err != concurrency.ErrLocked {
		t.Errorf("a lock that is held: %v", err)
	}
	fail("unlock", mutex.Unlock(ctx))
	election := concurrency.NewElection(session, "chair")
	fail("campaign", election.Campaign(ctx, "anna"))
	led, err := election.Leader(ctx)
	fail("leader", err)
	if string(led.Kvs[0].Value) != "anna" {
		t.Errorf("leader: %v", led)
	}
	fail("resign", election.Resign(ctx))
	expectText(t, "lock", front.Etcdctl("lock", "job", "--", "echo", "held"), "held")
}

// expectEvents reads as many events as are wanted.
func expectEvents(t *testing.T, ctx context.Context, events clientv3.WatchChan, wanted ...string) {
	t.Helper()
	var got []string
	for len(got) < len(wanted) {
		select {
		case answer, open := <-events:
			if !open || answer.Err() != nil {
				t.Fatalf("watch after %q: %v", got, answer.Err())
			}
			for _, event := range answer.Events {
				got = append(got, fmt.Sprintf("%s %s=%s", event.Type, event.Kv.Key, event.Kv.Value))
			}
		case <-ctx.Done():
			t.Fatalf("watch gave %q, want %q", got, wanted)
		}
	}
	if !slices.Equal(got, wanted) {
		t.Fatalf("watch gave %q, want %q", got, wanted)
	}
}

func page(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(harness.Context(t, waitMax), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v\n%s", url, answer.Status, err, body)
	}
	return string(body)
}

// figure is the value of a metric without labels.
func figure(t *testing.T, metrics, name string) int {
	t.Helper()
	match := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(metrics)
	if match == nil {
		t.Fatalf("no metric %s", name)
	}
	value, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(value)
}

func TestGRPCProxyAnswersAlike(t *testing.T) {
	t.Parallel()
	sideBySideThrough(t, throughFront(), func(server *harness.Server) *harness.Server { return startProxy(t, server) }, "--bcrypt-cost=4")
}

func TestGatewayAnswersAlike(t *testing.T) {
	t.Parallel()
	sideBySideThrough(t, throughFront(), func(server *harness.Server) *harness.Server { return startGateway(t, server) }, "--bcrypt-cost=4")
}

// TestGRPCProxyCoalescesWatches: many watches of one range are one at the server, and each sees everything, over a restart too.
func TestGRPCProxyCoalescesWatches(t *testing.T) {
	t.Parallel()
	const watchers = 30
	server := harness.StartUnderTest(t)
	metricsURL := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	proxy := startProxy(t, server, "--metrics-addr="+metricsURL)
	useEverything(t, proxy)

	client, ctx := proxy.Client(t), harness.Context(t, 2*waitMax)
	before := figure(t, page(t, server.Endpoint()+"/metrics"), "etcd_debugging_mvcc_watcher_total")
	var all []clientv3.WatchChan
	for range watchers {
		events := client.Watch(ctx, "many/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		if created := <-events; !created.Created {
			t.Fatalf("the first answer of a watch: %+v", created)
		}
		all = append(all, events)
	}
	await(t, "watches are coalesced", func() bool {
		return figure(t, page(t, server.Endpoint()+"/metrics"), "etcd_debugging_mvcc_watcher_total")-before < watchers/2
	})
	put(t, proxy, "many/a", "1", "many/b", "2")
	for _, events := range all {
		expectEvents(t, ctx, events, "PUT many/a=1", "PUT many/b=2")
	}
	server.Kill()
	server.Restart()
	put(t, server, "many/a", "3")
	for _, events := range all {
		expectEvents(t, ctx, events, "PUT many/a=3")
	}

	metrics := page(t, metricsURL+"/proxy/metrics")
	if figure(t, metrics, "etcd_grpc_proxy_events_coalescing_total") < watchers {
		t.Error("the proxy says that it has coalesced nothing")
	}
	if health := page(t, proxy.Endpoint()+"/health"); health != `{"health":"true","reason":""}` {
		t.Errorf("/health: %s", health)
	}
	if health := page(t, proxy.Endpoint()+"/proxy/health"); !strings.Contains(health, `"health":"true"`) {
		t.Errorf("/proxy/health: %s", health)
	}
	// Of a server behind it.
	if all := page(t, proxy.Endpoint()+"/metrics"); !strings.Contains(all, "etcd_server_has_leader 1") {
		t.Error("/metrics of the proxy lacks those of the server")
	}
}

// TestGRPCProxyCachesReads: a serializable read of what was read before does not reach the server, and a write ends that.
func TestGRPCProxyCachesReads(t *testing.T) {
	t.Parallel()
	server := harness.StartUnderTest(t)
	metricsURL := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	proxy := startProxy(t, server, "--metrics-addr="+metricsURL)
	client, ctx := proxy.Client(t), harness.Context(t, waitMax)
	read := func(want string) {
		t.Helper()
		answer, err := client.Get(ctx, "a", clientv3.WithSerializable())
		if err != nil || len(answer.Kvs) != 1 || string(answer.Kvs[0].Value) != want {
			t.Fatalf("get: %v, %v, want %s", answer, err, want)
		}
	}
	put(t, proxy, "a", "1")
	for range 5 {
		read("1")
	}
	put(t, proxy, "a", "2")
	read("2")
	if hits := figure(t, page(t, metricsURL+"/proxy/metrics"), "etcd_grpc_proxy_cache_hits_total"); hits < 4 {
		t.Errorf("%d hits of the cache", hits)
	}
}

// TestGRPCProxyFeatures: each mode in which etcd's proxy keeps something in the server itself.
func TestGRPCProxyFeatures(t *testing.T) {
	t.Parallel()
	t.Run("namespace", func(t *testing.T) {
		server := harness.StartUnderTest(t)
		proxy := startProxy(t, server, "--namespace=space/")
		put(t, proxy, "a", "1")
		expectText(t, "get at the server", server.Etcdctl("get", "space/", "--prefix"), "space/a", "1")
		expectText(t, "get at the proxy", proxy.Etcdctl("get", "", "--prefix"), "a", "1")
		useEverything(t, proxy)
	})
	t.Run("resolver", func(t *testing.T) {
		server := harness.StartUnderTest(t)
		var proxies []*harness.Server
		for range 2 {
			proxies = append(proxies, startProxy(t, server, "--resolver-prefix=proxies", "--resolver-ttl=60"))
		}
		await(t, "each proxy knows of both", func() bool {
			list := proxies[0].Etcdctl("member", "list")
			return strings.Contains(list, proxies[0].Target()) && strings.Contains(list, proxies[1].Target())
		})
		if registered := count(t, server, "proxies/"); registered != 2 {
			t.Errorf("%d proxies are registered", registered)
		}
	})
	t.Run("leasing", func(t *testing.T) {
		server := harness.StartUnderTest(t)
		first, second := startProxy(t, server, "--experimental-leasing-prefix=leasing/"), startProxy(t, server, "--experimental-leasing-prefix=leasing/")
		put(t, first, "a", "1")
		expectText(t, "get", first.Etcdctl("get", "a"), "a", "1")
		if owned := count(t, server, "leasing/a"); owned != 1 {
			t.Errorf("%d keys are leased", owned)
		}
		put(t, second, "a", "2") // takes the key from the first
		expectText(t, "get at the first", first.Etcdctl("get", "a"), "a", "2")
		expectText(t, "get at the server", server.Etcdctl("get", "a"), "a", "2")
	})
	t.Run("ordering", func(t *testing.T) {
		server := harness.StartUnderTest(t)
		proxy := startProxy(t, server, "--experimental-serializable-ordering", "--endpoints-auto-sync-interval=100ms")
		useEverything(t, proxy)
		expectText(t, "get", proxy.Etcdctl("get", "used/a", "--consistency=s"), "used/a", "2")
	})
	t.Run("TLS", func(t *testing.T) {
		certificates := harness.NewCertificates(t)
		server := harness.Start(t, harness.Options{TLS: certificates})
		proxy := startProxy(t, server, "--cacert="+certificates.Authority, "--cert="+certificates.NamelessCert, "--key="+certificates.ClientKey)
		useEverything(t, proxy)
	})
}

// TestGatewayOverMembers: a gateway before three members goes on when one of them is gone.
func TestGatewayOverMembers(t *testing.T) {
	t.Parallel()
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	gateway := startGateway(t, members...)
	useEverything(t, gateway)
	members[0].Kill()
	kv := pb.NewKVClient(gateway.Conn(t))
	await(t, "a write through the gateway", func() bool {
		_, err := kv.Put(harness.Context(t, waitMax), &pb.PutRequest{Key: []byte("a"), Value: []byte("1")})
		return err == nil
	})
	useEverything(t, gateway)
}
