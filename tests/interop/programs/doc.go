// Package programs tries what others have written for etcd against the server under test, unchanged: every command and flag
// of etcdctl and etcdutl, etcd's own proxy and gateway, confd, and clients of other languages.
//
//	side by side: one script of command lines, on genuine etcd and on the server under test; every output is equal
//	sessions:     what goes on, such as watches, locks, mirrors and proxies
//	help:         what `--help` names, and no line of a test has done, fails the test
//
// What needs more than Go is asked for by name (PROGRAMS, see README.md of the folder above), and `tests/programs` runs all.
package programs
