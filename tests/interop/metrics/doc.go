// Package metrics does the same work on genuine etcd and on basalt, scrapes both, and compares what moved.
//
// docs/metrics.md says of each family of etcd's how ours stands to it; the tests hold the document to both pages. The
// rules and the dashboard of etcd-mixin are evaluated by a Prometheus that scrapes both.
package metrics
