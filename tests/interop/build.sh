#!/bin/sh
# Builds the genuine etcd, etcdctl and etcdutl named by `tool` in go.mod into bin/ (git-ignored).
# Skipped when the binaries are newer than go.mod and go.sum, the only inputs.
set -eu
cd "$(dirname "$0")"
mkdir -p bin

build() { # build <binary> <package>
    if [ -n "$(find "bin/$1" -newer go.mod -newer go.sum 2>/dev/null)" ]; then
        return 0
    fi
    echo "building $1" >&2
    go build -trimpath -o "bin/$1" "$2"
    touch "bin/$1"
}

build etcd go.etcd.io/etcd/server/v3
build etcdctl go.etcd.io/etcd/etcdctl/v3
build etcdutl go.etcd.io/etcd/etcdutl/v3
