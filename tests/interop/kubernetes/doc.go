// Package kubernetes runs a real Kubernetes API server for custom resources inside the test process, with the server
// under test as its etcd. The judge is the API server's own check of its watch cache against what the store answers at
// exactly the cache's revision: here it runs every few seconds instead of minutes, and panics at a difference.
package kubernetes
