// Package interop holds the tests that use one server, genuine etcd or basalt, as its clients and operators do: through
// etcdctl, etcdutl, etcd's Go client, raw gRPC and HTTP. See README.md.
package interop
