// Package traces has genuine etcd and basalt export their traces to a collector of its own, and compares them.
package traces
