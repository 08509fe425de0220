package interop

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"basalt/tests/interop/harness"
)

// guard turns authentication on: root, and ann, who may read and write what begins with a.
func guard(t *testing.T, server *harness.Server) {
	t.Helper()
	for _, args := range [][]string{
		{"user", "add", "root:secret"}, {"user", "grant-role", "root", "root"}, {"role", "add", "a"},
		{"role", "grant-permission", "a", "readwrite", "--prefix", "a"}, {"user", "add", "ann:word"},
		{"user", "grant-role", "ann", "a"}, {"auth", "enable"},
	} {
		server.Etcdctl(args...)
	}
}

// login gives a context in which calls show a user's token.
func login(t *testing.T, ctx context.Context, s services, name, password string) context.Context {
	t.Helper()
	token, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(ctx, "token", token.Token)
}

var invalidToken = "etcdserver: invalid auth token"

// TestTokens: what ends a token and what does not (etcd-contract 49).
func TestTokens(t *testing.T) {
	server := harness.StartUnderTest(t)
	guard(t, server)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	ann, root := login(t, ctx, s, "ann", "word"), login(t, ctx, s, "root", "secret")
	read := get(&pb.RangeRequest{Key: []byte("a1")})
	expectStatus(t, "a fresh token", read(ann, s), codes.OK, "")

	// Users and roles change, and hers do not.
	must(s.auth.RoleAdd(root, &pb.AuthRoleAddRequest{Name: "other"}))(t)
	must(s.auth.UserAdd(root, &pb.AuthUserAddRequest{Name: "other", Password: "x"}))(t)
	expectStatus(t, "after other users changed", read(ann, s), codes.OK, "")
	must(s.auth.RoleRevokePermission(root, &pb.AuthRoleRevokePermissionRequest{Role: "a", Key: []byte("a"), RangeEnd: []byte("b")}))(t)
	expectStatus(t, "after the permission went", read(ann, s), codes.PermissionDenied, "etcdserver: permission denied")
	must(s.auth.RoleGrantPermission(root, &pb.AuthRoleGrantPermissionRequest{
		Name: "a", Perm: &authpb.Permission{Key: []byte("a"), RangeEnd: []byte("b"), PermType: authpb.Permission_READWRITE},
	}))(t)
	expectStatus(t, "after it came back", read(ann, s), codes.OK, "")

	must(s.auth.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "nowhere to be read"}))(t)
	expectStatus(t, "after the password changed", read(ann, s), codes.Unauthenticated, invalidToken)
	ann = login(t, ctx, s, "ann", "nowhere to be read")
	must(s.auth.UserDelete(root, &pb.AuthUserDeleteRequest{Name: "ann"}))(t)
	expectStatus(t, "after the user left", read(ann, s), codes.Unauthenticated, invalidToken)
	must(s.auth.AuthDisable(root, &pb.AuthDisableRequest{}))(t)
	expectStatus(t, "a token while nobody asks", read(ann, s), codes.OK, "")
	must(s.auth.AuthEnable(ctx, &pb.AuthEnableRequest{}))(t)
	_, err := s.auth.UserList(root, &pb.AuthUserListRequest{})
	expectStatus(t, "a token of before it was turned off", err, codes.Unauthenticated, invalidToken)
	bearer := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+tokenOf(login(t, ctx, s, "root", "secret")))
	_, err = s.auth.UserList(bearer, &pb.AuthUserListRequest{})
	expectStatus(t, "a token in the other header", err, codes.OK, "")
	if server.LogContains("nowhere to be read") || server.LogContains(tokenOf(ann)) {
		t.Error("the log holds a password or a token")
	}
}

func tokenOf(ctx context.Context) string {
	outgoing, _ := metadata.FromOutgoingContext(ctx)
	return outgoing.Get("token")[0]
}

// TestTokenOfOneMemberIsKnownToAll: also right after it was given, and a member that was away learns it.
func TestTokenOfOneMemberIsKnownToAll(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	guard(t, members[0])
	ctx := harness.Context(t, time.Minute)
	read := get(&pb.RangeRequest{Key: []byte("a1")})
	for round := range 20 {
		ann := login(t, ctx, servicesOf(members[round%3].Conn(t)), "ann", "word")
		for _, member := range members {
			expectStatus(t, "at another member", read(ann, servicesOf(member.Conn(t))), codes.OK, "")
		}
	}
	root := login(t, ctx, servicesOf(members[0].Conn(t)), "root", "secret")
	must(servicesOf(members[1].Conn(t)).auth.AuthDisable(root, &pb.AuthDisableRequest{}))(t)
	for _, member := range members {
		expectStatus(t, "while nobody asks", read(ctx, servicesOf(member.Conn(t))), codes.OK, "")
	}
}

// TestAuthenticationOutlivesTheProcess: users, roles and that they are asked for, also killed.
func TestAuthenticationOutlivesTheProcess(t *testing.T) {
	server := harness.StartUnderTest(t)
	guard(t, server)
	server.Etcdctl("--user=ann:word", "put", "a1", "x")
	server.Kill()
	server.Restart()
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	expectStatus(t, "nobody", get(&pb.RangeRequest{Key: []byte("a1")})(ctx, s), codes.InvalidArgument, "etcdserver: user name is empty")
	expectText(t, "ann", server.Etcdctl("--user=ann:word", "get", "a1"), "a1", "x")
}

// TestLeasesEndWhileSomebodyAsks: what the server orders by itself needs no token.
func TestLeasesEndWhileSomebodyAsks(t *testing.T) {
	server := harness.StartUnderTest(t)
	guard(t, server)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	ann := login(t, ctx, s, "ann", "word")
	lease := must(s.lease.LeaseGrant(ann, &pb.LeaseGrantRequest{TTL: 2}))(t)
	must(s.kv.Put(ann, &pb.PutRequest{Key: []byte("a1"), Lease: lease.ID}))(t)
	for {
		left := must(s.kv.Range(ann, &pb.RangeRequest{Key: []byte("a1")}))(t)
		if left.Count == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestWatchesEndWithTheirPermission: etcd goes on to tell them; basalt cuts them on the spot (etcd-contract 26).
func TestWatchesEndWithTheirPermission(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd tells them on")
	}
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	watch := func(ctx context.Context, key string) pb.Watch_WatchClient {
		stream := must(s.watch.Watch(ctx))(t)
		create := &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(key + "z")}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
		if created := must(stream.Recv())(t); !created.Created || created.Canceled {
			t.Fatalf("not begun: %v", created)
		}
		return stream
	}
	expectEnd := func(name string, stream pb.Watch_WatchClient, reason string) {
		t.Helper()
		if ended := must(stream.Recv())(t); !ended.Canceled || ended.WatchId != 0 || ended.CancelReason != reason {
			t.Errorf("%s: %v", name, ended)
		}
	}
	before := watch(ctx, "a")
	guard(t, server)
	expectEnd("nobody's, when it was turned on", before, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty")

	ann, root := login(t, ctx, s, "ann", "word"), login(t, ctx, s, "root", "secret")
	hers, roots := watch(ann, "a"), watch(root, "a")
	must(s.auth.RoleAdd(root, &pb.AuthRoleAddRequest{Name: "unrelated"}))(t)
	must(s.kv.Put(root, &pb.PutRequest{Key: []byte("a1")}))(t)
	for _, stream := range []pb.Watch_WatchClient{hers, roots} {
		if told := must(stream.Recv())(t); len(told.Events) != 1 {
			t.Errorf("an unrelated change: %v", told)
		}
	}
	must(s.auth.UserRevokeRole(root, &pb.AuthUserRevokeRoleRequest{Name: "ann", Role: "a"}))(t)
	must(s.kv.Put(root, &pb.PutRequest{Key: []byte("a2")}))(t)
	expectEnd("hers, when the role went", hers, "rpc error: code = PermissionDenied desc = etcdserver: permission denied")
	if told := must(roots.Recv())(t); len(told.Events) != 1 {
		t.Errorf("root's goes on: %v", told)
	}
}

// TestUserByCertificate: where client certificates are demanded their common name is the user (etcd-contract 50).
func TestUserByCertificate(t *testing.T) {
	server := harness.Start(t, harness.Options{TLS: harness.NewCertificates(t)})
	for _, args := range [][]string{{"role", "add", "a"}, {"role", "grant-permission", "a", "readwrite", "a1"},
		{"user", "add", "interop client", "--no-password"}, {"user", "grant-role", "interop client", "a"},
		{"user", "add", "root:secret"}, {"user", "grant-role", "root", "root"}, {"auth", "enable"},
	} {
		server.Etcdctl(args...)
	}
	server.Etcdctl("put", "a1", "x")
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	expectStatus(t, "what the certificate's user may not", put(&pb.PutRequest{Key: []byte("b")})(ctx, s), codes.PermissionDenied,
		"etcdserver: permission denied")
	root := login(t, ctx, s, "root", "secret")
	expectStatus(t, "a token goes before", put(&pb.PutRequest{Key: []byte("b")})(root, s), codes.OK, "")
	bad := metadata.AppendToOutgoingContext(ctx, "token", "forged")
	expectStatus(t, "also a bad one", put(&pb.PutRequest{Key: []byte("a1")})(bad, s), codes.Unauthenticated, invalidToken)
}

// TestCertificateThatNamesNobody: it gives no rights. To genuine etcd its holder is a user of the empty name, who is denied keys and
// served what any user is.
func TestCertificateThatNamesNobody(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd serves it")
	}
	certificates := harness.NewCertificates(t)
	server := harness.Start(t, harness.Options{TLS: certificates})
	for _, args := range [][]string{{"user", "add", "root:secret"}, {"user", "grant-role", "root", "root"}, {"auth", "enable"}} {
		server.Etcdctl(args...)
	}
	certificates.ClientCert = certificates.NamelessCert
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	const nobody = "etcdserver: user name is empty"
	expectRefusals(t, ctx, s, []refusal{
		{"range", codes.InvalidArgument, nobody, get(&pb.RangeRequest{Key: []byte("a")})},
		{"put", codes.InvalidArgument, nobody, put(&pb.PutRequest{Key: []byte("a")})},
		{"lease grant", codes.InvalidArgument, nobody, grant(0, 100)},
		{"status", codes.InvalidArgument, nobody, func(ctx context.Context, s services) error {
			return second(s.maintenance.Status(ctx, &pb.StatusRequest{}))
		}},
		{"alarms", codes.InvalidArgument, nobody, func(ctx context.Context, s services) error {
			return second(s.maintenance.Alarm(ctx, &pb.AlarmRequest{}))
		}},
		{"members", codes.InvalidArgument, nobody, func(ctx context.Context, _ services) error {
			return second(clusterOf(t, server).MemberList(ctx, &pb.MemberListRequest{}))
		}},
	})
	expectStatus(t, "a token says who it is", put(&pb.PutRequest{Key: []byte("a")})(login(t, ctx, s, "root", "secret"), s), codes.OK, "")
}

// TestAuthenticationMoves: from etcd by snapshot and back, with passwords, and still on (etcd-contract 59).
func TestAuthenticationMoves(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd to genuine etcd")
	}
	etcd := harness.Start(t, harness.Options{Kind: harness.Etcd})
	guard(t, etcd)
	etcd.Etcdctl("--user=ann:word", "put", "a1", "x")
	dir := t.TempDir()
	there, back := filepath.Join(dir, "there.db"), filepath.Join(dir, "back.db")
	etcd.Etcdctl("--user=root:secret", "snapshot", "save", there)
	mustBasaltctl(t, "snapshot", "restore", there, "--data-dir", filepath.Join(dir, "basalt"))
	expectGuarded := func(server *harness.Server) {
		t.Helper()
		s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
		expectStatus(t, "nobody", get(&pb.RangeRequest{Key: []byte("a1")})(ctx, s), codes.InvalidArgument, "etcdserver: user name is empty")
		expectText(t, "ann", server.Etcdctl("--user=ann:word", "get", "a1"), "a1", "x")
		if status := must(s.auth.AuthStatus(ctx, &pb.AuthStatusRequest{}))(t); !status.Enabled || status.AuthRevision != 7 {
			t.Errorf("%v", status)
		}
	}
	expectGuarded(etcd)
	basalt := harness.Start(t, harness.Options{DataDir: filepath.Join(dir, "basalt")})
	expectGuarded(basalt)
	basalt.Etcdctl("--user=root:secret", "snapshot", "save", back)
	harness.Etcdutl(t, "snapshot", "restore", back, "--data-dir", filepath.Join(dir, "etcd"))
	expectGuarded(harness.Start(t, harness.Options{Kind: harness.Etcd, DataDir: filepath.Join(dir, "etcd")}))
}

// observeAuthToken: with none there are no tokens.
func observeAuthToken(t *testing.T) {
	server := harness.StartUnderTest(t, "--auth-token=")
	guard(t, server)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	_, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "word"})
	expectStatus(t, "a login", err, codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
}

// observeBcryptCost: the hash says by which cost it was made.
func observeBcryptCost(t *testing.T) {
	server := harness.StartUnderTest(t, "--bcrypt-cost=5")
	server.Etcdctl("user", "add", "ann:word")
	path := filepath.Join(t.TempDir(), "s.db")
	server.Etcdctl("snapshot", "save", path)
	if !bytes.Contains(must(os.ReadFile(path))(t), []byte("$2a$05$")) {
		t.Error("no hash of that cost is stored")
	}
}

// observeAuthTokenTTL: a token that is not used ends; one that is used goes on.
func observeAuthTokenTTL(t *testing.T) {
	server := harness.StartUnderTest(t, "--auth-token-ttl=3")
	guard(t, server)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	used, unused := login(t, ctx, s, "ann", "word"), login(t, ctx, s, "ann", "word")
	read := get(&pb.RangeRequest{Key: []byte("a1")})
	for range 10 {
		time.Sleep(500 * time.Millisecond)
		if err := read(used, s); err != nil {
			t.Fatalf("a token in use: %v", err)
		}
	}
	if err := read(unused, s); err == nil || !strings.Contains(err.Error(), invalidToken) {
		t.Errorf("a token of three seconds after five: %v", err)
	}
}

// TestSignedTokens: they need no memory, also not of a restarted server, and end with the users and roles that they were made
// by (etcd-contract 49).
func TestSignedTokens(t *testing.T) {
	keys := harness.NewCertificates(t)
	signs := "--auth-token=jwt,sign-method=ES256,priv-key=" + keys.ServerKey + ",pub-key=" + keys.ServerCert + ",ttl=1m"
	server := harness.StartUnderTest(t, signs)
	guard(t, server)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	ann := login(t, ctx, s, "ann", "word")
	if parts := strings.Split(tokenOf(ann), "."); len(parts) != 3 {
		t.Errorf("no token of that form: %q", tokenOf(ann))
	}
	read := get(&pb.RangeRequest{Key: []byte("a1")})
	expectStatus(t, "a signed token", read(ann, s), codes.OK, "")
	server.Kill()
	server.Restart()
	s = servicesOf(server.Conn(t))
	expectStatus(t, "after a restart", read(ann, s), codes.OK, "")
	root := login(t, ctx, s, "root", "secret")
	must(s.auth.RoleAdd(root, &pb.AuthRoleAddRequest{Name: "other"}))(t)
	old := "etcdserver: revision of auth store is old"
	expectStatus(t, "read with one of before a change", read(ann, s), codes.InvalidArgument, old)
	expectStatus(t, "write with it", put(&pb.PutRequest{Key: []byte("a1")})(ann, s), codes.InvalidArgument, old)
	expectStatus(t, "a new one", read(login(t, ctx, s, "ann", "word"), s), codes.OK, "")
	forged := tokenOf(root)[:len(tokenOf(root))-4] + "AAAA"
	_, err := s.auth.UserList(metadata.AppendToOutgoingContext(ctx, "token", forged), &pb.AuthUserListRequest{})
	expectStatus(t, "a forged one", err, codes.Unauthenticated, invalidToken)

	// Whoever has the public key only takes tokens and gives none.
	server.Stop()
	verifier := harness.Start(t, harness.Options{DataDir: server.DataDir, Args: []string{
		"--auth-token=jwt,sign-method=ES256,pub-key=" + keys.ServerCert,
	}})
	s = servicesOf(verifier.Conn(t))
	_, err = s.auth.UserList(root, &pb.AuthUserListRequest{})
	// What only root may asks for no revision, in etcd too.
	expectStatus(t, "root's where no tokens are given", err, codes.OK, "")
	_, err = s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "ann", Password: "word"})
	expectStatus(t, "a login there", err, codes.Unknown, "auth: token signing attempted with verify-only key")
}

// TestKeysOfSignedTokensAreReplaced: without a restart, and tokens of before are good beside those of after. etcd reads keys once.
func TestKeysOfSignedTokensAreReplaced(t *testing.T) {
	if harness.UnderTest(t) == harness.Etcd {
		t.Skip("etcd reads its keys at the start only")
	}
	key := filepath.Join(t.TempDir(), "key")
	write := func(secret string) {
		if err := os.WriteFile(key+".new", []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(key+".new", key); err != nil {
			t.Fatal(err)
		}
	}
	write("the first secret")
	server := harness.StartUnderTest(t, "--auth-token=jwt,sign-method=HS256,priv-key="+key+",ttl=10m")
	guard(t, server)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	old := login(t, ctx, s, "ann", "word")
	write("the second secret")
	read := get(&pb.RangeRequest{Key: []byte("a1")})
	await(t, ctx, "the second key", func() bool {
		expectStatus(t, "a token of the first key", read(old, s), codes.OK, "")
		return server.LogContains("read the keys of signed tokens again")
	})
	expectStatus(t, "a token of the second key", read(login(t, ctx, s, "ann", "word"), s), codes.OK, "")
	// Whoever starts anew knows the second key alone.
	fresh := login(t, ctx, s, "ann", "word")
	server.Stop()
	server.Restart()
	s = servicesOf(server.Conn(t))
	expectStatus(t, "the second key after a restart", read(fresh, s), codes.OK, "")
	expectStatus(t, "the first key after a restart", read(old, s), codes.Unauthenticated, invalidToken)
}

// TestBasaltctlAsSomebody: what is asked of a cluster takes a user as etcdctl does.
func TestBasaltctlAsSomebody(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("basaltctl asks basalt")
	}
	server := harness.StartUnderTest(t)
	endpoints := "--endpoints=" + server.Endpoint()
	if open := harness.Basaltctl(t, "status", endpoints, "--user=nobody:x"); open.Code != 0 {
		t.Errorf("while nobody is asked: %+v", open)
	}
	guard(t, server)
	for _, refused := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 1, "user name is empty"},
		{[]string{"--user=root:wrong"}, 1, "authentication failed, invalid user ID or password"},
		{[]string{"--user=root"}, 2, "--user needs a password"},
		{[]string{"--password=x"}, 2, "--user needs a password"},
	} {
		if result := harness.Basaltctl(t, append([]string{"status", endpoints}, refused.args...)...); result.Code != refused.code ||
			!strings.Contains(result.Stdout+result.Stderr, refused.says) {
			t.Errorf("status %v: %+v", refused.args, result)
		}
	}
	for _, args := range [][]string{{"--user=root:secret"}, {"--user=root", "--password=secret"}} {
		result := harness.Basaltctl(t, append([]string{"status", endpoints}, args...)...)
		if result.Code != 0 || strings.Contains(result.Stdout+result.Stderr, "secret") {
			t.Errorf("status %v: %+v", args, result)
		}
	}
	if result := harness.Basaltctl(t, "member", "remove", "1", endpoints, "--user=ann:word"); result.Code != 1 ||
		!strings.Contains(result.Stderr, "permission denied") {
		t.Errorf("who is not root: %+v", result)
	}
}
