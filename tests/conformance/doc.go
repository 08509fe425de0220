// Package conformance names etcd's own suite as a dependency, so that its version and checksums stand in go.mod and go.sum;
// `run` builds and runs it.
package conformance

import (
	_ "go.etcd.io/etcd/tests/v3/framework"
	_ "go.etcd.io/etcd/tests/v3/framework/e2e"
)
