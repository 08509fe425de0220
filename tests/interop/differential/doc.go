// Package differential asks genuine etcd and the server under test the same questions and compares every answer.
//
//	Generator ──Step──► Runner ──┬─► side: genuine etcd ──answer──┐
//	    ▲                        └─► side: under test ──answer──┴─► normalise ─► equal?
//	    └─────────────── world: what both answered ◄──────────────────────┘
//
// A seed and the answers decide every step, so that a printed seed replays its failure. Both sides start from an empty
// store, so revisions must agree to the last one. One request at a time changes something; reads that no write separates go
// out together.
//
//	round ──fails──► shrink ──► testdata/*.steps ──► TestKeptSequences
//
// Watches run on several streams. Before anything that could race with their delivery (a compaction, a cancellation,
// a new watcher after writes) and at regular intervals the runner drains them: it puts a barrier key and waits until each
// stream has delivered it and has answered a progress request at or above its revision. What each watcher received since
// the last drain must then be equal.
//
// Answers may differ only by what allowed.go lists.
//
// It does not compare: timing, log output, metrics, HTTP, authentication, or more than one member.
package differential
