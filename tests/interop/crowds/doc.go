// Package crowds holds what is slow or many: thousands of watchers that come back at once, a watcher that never reads,
// leases that all end together, lists that all come together, and reads from a slow disk.
//
// The tests run small; CROWDS=full makes them as large as they are meant, which takes minutes and 8 GiB of memory for the
// clients. Nothing here is timed: what must hold is counted in reads, bytes and answers.
package crowds
