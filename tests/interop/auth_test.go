package interop

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"basalt/tests/interop/harness"
)

// authRefusals are what the Auth service answers while authentication is off.
func authRefusals() []refusal {
	return []refusal{
		{"authenticate while disabled", codes.FailedPrecondition, "etcdserver: authentication is not enabled",
			func(ctx context.Context, s services) error {
				_, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "x"})
				return err
			}},
		{"enable without root", codes.FailedPrecondition, "etcdserver: root user does not exist",
			func(ctx context.Context, s services) error {
				_, err := s.auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
				return err
			}},
		{"user without a name", codes.InvalidArgument, "etcdserver: user name is empty",
			func(ctx context.Context, s services) error {
				_, err := s.auth.UserAdd(ctx, &pb.AuthUserAddRequest{Password: "x"})
				return err
			}},
		{"role without a name", codes.InvalidArgument, "etcdserver: role name is empty",
			func(ctx context.Context, s services) error {
				_, err := s.auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{})
				return err
			}},
		{"unknown user", codes.FailedPrecondition, "etcdserver: user name not found",
			func(ctx context.Context, s services) error {
				_, err := s.auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: "nobody"})
				return err
			}},
		{"unknown role", codes.FailedPrecondition, "etcdserver: role name not found",
			func(ctx context.Context, s services) error {
				_, err := s.auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "nothing"})
				return err
			}},
	}
}

// TestAuthentication turns authentication on and checks who may do what (etcd-contract 49).
func TestAuthentication(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	for _, args := range [][]string{
		{"user", "add", "root:secret"}, {"user", "grant-role", "root", "root"}, {"role", "add", "reader"},
		{"role", "grant-permission", "reader", "read", "--prefix", "public/"}, {"user", "add", "anna:word"},
		{"user", "grant-role", "anna", "reader"}, {"put", "public/a", "1"}, {"put", "private/a", "2"}, {"auth", "enable"},
	} {
		server.Etcdctl(args...)
	}
	expectRefusals(t, ctx, s, []refusal{
		{"no token", codes.InvalidArgument, "etcdserver: user name is empty", put(&pb.PutRequest{Key: []byte("public/a")})},
		{"bad password", codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password",
			func(ctx context.Context, s services) error {
				_, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "anna", Password: "no"})
				return err
			}},
	})
	bad := metadata.AppendToOutgoingContext(ctx, "token", "forged")
	expectStatus(t, "bad token", get(&pb.RangeRequest{Key: []byte("public/a")})(bad, s), codes.Unauthenticated,
		"etcdserver: invalid auth token")

	login, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "anna", Password: "word"})
	if err != nil {
		t.Fatal(err)
	}
	anna := metadata.AppendToOutgoingContext(ctx, "token", login.Token)
	expectStatus(t, "read what may be read", get(&pb.RangeRequest{Key: []byte("public/a")})(anna, s), codes.OK, "")
	denied := "etcdserver: permission denied"
	expectRefusals(t, anna, s, []refusal{
		{"write", codes.PermissionDenied, denied, put(&pb.PutRequest{Key: []byte("public/a")})},
		{"read what is private", codes.PermissionDenied, denied, get(&pb.RangeRequest{Key: []byte("private/a")})},
		{"range beyond the permission", codes.PermissionDenied, denied,
			get(&pb.RangeRequest{Key: []byte("public/"), RangeEnd: []byte("r")})},
		{"write in the branch not taken", codes.PermissionDenied, denied,
			txn(&pb.TxnRequest{Failure: []*pb.RequestOp{opPut("public/a")}})},
		{"compare what is private", codes.PermissionDenied, denied,
			txn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("private/a")}}})},
		{"compact", codes.PermissionDenied, denied, compact(2)},
		{"administer", codes.PermissionDenied, denied, func(ctx context.Context, s services) error {
			_, err := s.auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{
				Name: "reader", Perm: &authpb.Permission{Key: []byte("private/"), RangeEnd: []byte{0}},
			})
			return err
		}},
	})
	expectText(t, "get as anna", server.Etcdctl("--user=anna:word", "get", "public/a"), "public/a", "1")
	server.Etcdctl("--user=root:secret", "auth", "disable")
	expectText(t, "get after disabling", server.Etcdctl("get", "private/a"), "private/a", "2")
}
