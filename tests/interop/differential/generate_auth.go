package differential

import (
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// as is a request of somebody: with the token of a user, whose password is its name.
type as struct {
	person string
	proto.Message
}

const (
	root = "root"
	// nobody shows no token, and stranger one that nobody gave.
	nobody, stranger = "nobody", "stranger"
)

var (
	accounts = []string{"ann", "bob", "carl"}
	roles    = []string{"r1", "r2", "r3"}
	// granted are ranges that roles get. No two begin alike: there etcd leaves a wider permission standing beside one that
	// shall replace it, and basalt does not.
	granted = [][2]string{
		{"/registry/", "/registry0"}, {"/registry/pods/", "/registry/pods0"}, {"/registry/events", "/registry/leases"},
		{"a", ""}, {"b", "\x00"}, {"\x00", "\xff"}, {"/registry/leases/", "/registry/masterleases/"}, {"long", "lonh"},
	}
)

// unwrapped is the request itself, whoever asks.
func unwrapped(request proto.Message) proto.Message {
	if of, ok := request.(as); ok {
		return of.Message
	}
	return request
}

// authSession fills users and roles, has somebody ask for them, does what there is to do as everybody, and ends that.
func (g *Generator) authSession() Step {
	for _, request := range []proto.Message{
		&pb.AuthUserDeleteRequest{Name: root}, &pb.AuthUserAddRequest{Name: root, Password: root}, &pb.AuthEnableRequest{},
		&pb.AuthUserGrantRoleRequest{User: root, Role: root},
	} {
		g.then(func() Step { return call(request) })
	}
	for range g.random.IntN(12) {
		g.then(func() Step { return call(g.management()) })
	}
	g.then(func() Step { return call(&pb.AuthEnableRequest{}) })
	for range 20 + g.random.IntN(60) {
		g.then(g.stepAsSomebody)
	}
	// A second time, for the first one's token is refused if root's password was changed just before.
	for range 2 {
		g.then(g.stepDisable)
		g.then(func() Step { return call(&pb.AuthStatusRequest{}) })
	}
	// Watches of nobody end here when somebody asks, and go on in etcd: nobody looks at those of before.
	g.then(func() Step { return Step{restart: restartStreams} })
	return drainStep()
}

func (g *Generator) stepDisable() Step {
	if !g.guarded {
		return call(&pb.AuthStatusRequest{})
	}
	return call(as{root, &pb.AuthDisableRequest{}})
}

func (g *Generator) person() string {
	return pick(g.random, slices.Concat(accounts, accounts, accounts, []string{root, root, nobody, stranger}))
}

func (g *Generator) stepAsSomebody() Step {
	person := g.person()
	g.asSomebody = true
	defer func() { g.asSomebody = false }()
	switch roll := g.random.IntN(100); {
	case roll < 25:
		if g.chance(2, 3) {
			person = root
		}
		return call(as{person, g.management()})
	case roll < 32:
		return call(as{person, g.maintenance()})
	case roll < 35:
		return call(as{person, g.hashKV()})
	case roll < 50:
		return call(as{person, g.read()})
	default:
		step := g.keyStep()
		if len(step.calls) != 1 {
			return call(as{person, g.read()})
		}
		return call(as{person, step.calls[0]})
	}
}

func (g *Generator) account() string {
	if g.chance(1, 20) {
		return pick(g.random, []string{"", "nosuch", root})
	}
	return pick(g.random, accounts)
}

func (g *Generator) role() string {
	if g.chance(1, 15) {
		return pick(g.random, []string{"", "nosuch", root})
	}
	return pick(g.random, roles)
}

// management is a request about users and roles.
func (g *Generator) management() proto.Message {
	switch g.random.IntN(24) {
	case 0, 1, 2:
		name := g.account()
		add := &pb.AuthUserAddRequest{Name: name, Password: name}
		if g.chance(1, 8) {
			add.Options = &authpb.UserAddOptions{NoPassword: true}
		}
		return add
	case 3:
		return &pb.AuthUserDeleteRequest{Name: g.account()}
	case 4:
		name := g.account()
		return &pb.AuthUserChangePasswordRequest{Name: name, Password: name}
	case 5, 6, 7, 8:
		return &pb.AuthUserGrantRoleRequest{User: g.account(), Role: g.role()}
	case 9:
		return &pb.AuthUserRevokeRoleRequest{Name: g.account(), Role: g.role()}
	case 10:
		return &pb.AuthUserGetRequest{Name: g.account()}
	case 11:
		return &pb.AuthUserListRequest{}
	case 12, 13:
		return &pb.AuthRoleAddRequest{Name: g.role()}
	case 14:
		return &pb.AuthRoleDeleteRequest{Role: g.role()}
	case 15:
		return &pb.AuthRoleGetRequest{Role: g.role()}
	case 16:
		return &pb.AuthRoleListRequest{}
	case 17, 18, 19, 20:
		return g.grantPermission()
	case 21:
		keys := pick(g.random, granted)
		return &pb.AuthRoleRevokePermissionRequest{Role: g.role(), Key: []byte(keys[0]), RangeEnd: []byte(keys[1])}
	case 22:
		name := g.account()
		return &pb.AuthenticateRequest{Name: name, Password: pick(g.random, []string{"", "wrong"})}
	default:
		return &pb.AuthStatusRequest{}
	}
}

func (g *Generator) grantPermission() *pb.AuthRoleGrantPermissionRequest {
	request := &pb.AuthRoleGrantPermissionRequest{Name: g.role()}
	if g.chance(1, 25) {
		return request
	}
	keys := pick(g.random, granted)
	request.Perm = &authpb.Permission{
		PermType: authpb.Permission_Type(g.random.IntN(3)), Key: []byte(keys[0]), RangeEnd: []byte(keys[1]),
	}
	if g.chance(1, 25) {
		request.Perm.Key, request.Perm.RangeEnd = pick(g.random, [][]byte{nil, []byte("z")}), []byte("y")
	}
	return request
}
