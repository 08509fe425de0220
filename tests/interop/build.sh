#!/bin/sh
# Builds the genuine etcd, etcdctl and etcdutl named by `tool` in go.mod into bin/ (git-ignored), and etcd and etcdutl of the
# release before, to which a downgrade goes, of etcd36/go.mod; with `confd` also that program, of confd/go.mod.
# Skipped when the binaries are newer than go.mod and go.sum, the only inputs.
# Usage: build.sh [confd]
set -eu
cd "$(dirname "$0")"
mkdir -p bin

build() { # build <binary> <package> [<module>]
    module=${3:-.}
    if [ -n "$(find "bin/$1" -newer "$module/go.mod" -newer "$module/go.sum" 2>/dev/null)" ]; then
        return 0
    fi
    echo "building $1" >&2
    go build -C "$module" -trimpath -o "$PWD/bin/$1" "$2"
    touch "bin/$1"
}

build etcd go.etcd.io/etcd/server/v3
build etcdctl go.etcd.io/etcd/etcdctl/v3
build etcdutl go.etcd.io/etcd/etcdutl/v3
build etcd-3.6 go.etcd.io/etcd/server/v3 etcd36
build etcdutl-3.6 go.etcd.io/etcd/etcdutl/v3 etcd36
case ${1:-} in
    '') ;;
    confd) build confd github.com/abtreece/confd/cmd/confd confd ;;
    *) echo "build.sh: unknown program '$1'" >&2; exit 2 ;;
esac
