package metrics

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"basalt/tests/interop/harness"
)

// ownPrefix begins the names that are not etcd's.
const ownPrefix = "basalt_"

// observed is a server before the work, after what both count alike, and after what etcd does by requests of its own
// to itself: health and locks.
type observed struct {
	before, after, last page
	// during has streams open and an alarm armed.
	during page
	ended  []string
}

// TestMetricsStandAsWritten does the same work on genuine etcd and on basalt, and holds docs/metrics.md to what both show.
func TestMetricsStandAsWritten(t *testing.T) {
	document := readDocument(t)
	for _, detail := range []string{"basic", "extensive"} {
		t.Run(detail, func(t *testing.T) {
			compare(t, document, oneMember(t, harness.Etcd, detail), oneMember(t, harness.UnderTest(t), detail))
		})
	}
	t.Run("members", func(t *testing.T) {
		etcd, ours := threeMembers(t, harness.Etcd), threeMembers(t, harness.UnderTest(t))
		for n, role := range roles {
			t.Run(role, func(t *testing.T) { compare(t, document, etcd[n], ours[n]) })
		}
	})
	if !t.Failed() {
		document.checkUse(t)
	}
}

// oneMember works on a server alone.
func oneMember(t *testing.T, kind harness.Kind, detail string) observed {
	t.Helper()
	server := harness.Start(t, harness.Options{Kind: kind, Args: []string{"--metrics=" + detail}})
	w := newWorker(t, server)
	names := map[string]string{}
	w.name(names)
	before := scrape(t, server, names)
	w.keys()
	w.leases()
	w.watches()
	w.compactions()
	during := w.upkeep(names)
	w.members(names)
	w.closing()
	w.awaitStreams(0)
	w.users()
	after := w.settled(names)
	w.pages()
	w.locks()
	last := w.settled(names)
	server.Stop()
	return observed{before: before, during: during, after: after, last: last, ended: w.ended}
}

// compare holds the document to what two servers show that did the same.
func compare(t *testing.T, document *document, etcd, ours observed) {
	t.Helper()
	if testing.Verbose() {
		t.Log(etcd.ended)
	}
	for n, step := range etcd.ended {
		if n >= len(ours.ended) || ours.ended[n] != step {
			t.Fatalf("step %q of etcd ended as %q here", step, ours.ended[min(n, len(ours.ended)-1)])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(etcd.last)) {
		compareFamily(t, document, name, step{etcd.before, etcd.after}, step{ours.before, ours.after})
		if etcd.during != nil && slices.Contains(ofStreams, name) {
			compareFamily(t, document, name, step{etcd.before, etcd.during}, step{ours.before, ours.during})
		}
		if slices.ContainsFunc(ofClients, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			compareFamily(t, document, name, step{etcd.after, etcd.last}, step{ours.after, ours.last})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ours.last)) {
		if _, ok := etcd.last[name]; !ok && !strings.HasPrefix(name, ownPrefix) && document.of(name, "") == nil {
			t.Errorf("%s is neither etcd's nor ours", name)
		}
	}
}

// ofClients are families that what etcd asks itself does not move.
var ofClients = []string{"grpc_server_", "etcd_server_health", "etcd_server_client_requests_total"}

// ofStreams are families that come back to where they were when streams end and alarms are disarmed.
var ofStreams = []string{"etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_watch_stream_total", "etcd_debugging_server_alarms"}

// step is a part of the work.
type step struct{ before, after page }

// compareFamily looks at one family of etcd's.
func compareFamily(t *testing.T, document *document, name string, etcd, ours step) {
	t.Helper()
	whole := document.of(name, "")
	if whole == nil {
		t.Errorf("%s is not in %s", name, documentPath)
		return
	}
	whole.seen = true
	theirs, here := etcd.after[name], ours.after[name]
	_, isHere := ours.after[name]
	if whole.standing == absent {
		if isHere {
			t.Errorf("%s is there, against %s", name, documentPath)
		}
		return
	}
	if !isHere {
		if len(theirs.series) > 0 {
			t.Errorf("no %s", name)
		}
		return
	}
	if theirs.kind != here.kind {
		t.Errorf("%s is a %s, and a %s for etcd", name, here.kind, theirs.kind)
	}
	movedThere, movedHere := etcd.after.moved(etcd.before, name), ours.after.moved(ours.before, name)
	for _, labels := range slices.Sorted(maps.Keys(theirs.series)) {
		row := document.of(name, labels)
		row.seen = true
		there, same := theirs.series[labels]
		now, ok := here.series[labels]
		if row.standing == absent {
			if ok && now.value != 0 {
				t.Errorf("%s{%s} is there, against %s", name, labels, documentPath)
			}
			continue
		}
		if !ok || !same {
			t.Errorf("no %s{%s}", name, labels)
			continue
		}
		if now.buckets != there.buckets {
			t.Errorf("%s{%s} has the buckets %s, and %s for etcd", name, labels, now.buckets, there.buckets)
		}
		row.moved = row.moved || movedThere[labels] != 0
		switch row.standing {
		case equal:
			if movedThere[labels] != movedHere[labels] {
				t.Errorf("%s{%s} moved by %v, and by %v for etcd", name, labels, movedHere[labels], movedThere[labels])
			}
		case moves:
			if row.test == "" && movedThere[labels] != 0 && movedHere[labels] == 0 {
				t.Errorf("%s{%s} did not move, and by %v for etcd", name, labels, movedThere[labels])
			}
		case zero:
			if now.value != 0 {
				t.Errorf("%s{%s} is %v, against %s", name, labels, now.value, documentPath)
			}
		}
	}
	for labels, by := range movedHere {
		if row := document.of(name, labels); row.standing == equal && movedThere[labels] == 0 {
			t.Errorf("%s{%s} moved by %v, and not for etcd", name, labels, by)
		}
	}
}
