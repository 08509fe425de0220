package kubernetes

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/features"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"

	"basalt/tests/interop/harness"
)

const (
	// objectsDefault in each run; KUBERNETES_OBJECTS overrides it.
	objectsDefault = 2_000
	namespaces     = 4
	workers        = 8
	// pageSize does not divide the number of objects.
	pageSize = 300
	// runTimeout bounds everything that one storage prefix does.
	runTimeout = 4 * time.Minute
)

// TestAPIServer runs the same life of a resource type under prefixes that put all its keys into each shard in turn.
// Up to its restart the API server answers no lists from snapshots of its cache, so that every page and every list at
// an exact revision is read from the store.
func TestAPIServer(t *testing.T) {
	for _, prefix := range []string{"/registry", "/registry/events", "/registry/leases"} {
		t.Run(strings.TrimPrefix(prefix, "/"), func(t *testing.T) {
			listFromCacheSnapshots(t, false)
			ctx := harness.Context(t, runTimeout)
			store := harness.StartUnderTest(t, "--watch-progress-notify-interval=1s")
			newLife(t, ctx, store, prefix).run()
		})
	}
}

func listFromCacheSnapshots(t *testing.T, enabled bool) {
	t.Helper()
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.ListFromCacheSnapshot, enabled)
}

// life is the story of one resource type.
type life struct {
	t       *testing.T
	ctx     context.Context
	store   *harness.Server
	prefix  string
	objects int
	api     *apiServer
	watcher *observer

	// begun counts creations that were sent at least once.
	begun atomic.Int64

	mutex        sync.Mutex
	acknowledged []uint64
	// milestone is closed once as many revisions are acknowledged.
	milestoneAt int
	milestone   chan struct{}
}

func newLife(t *testing.T, ctx context.Context, store *harness.Server, prefix string) *life {
	objects := objectsDefault
	if text := os.Getenv("KUBERNETES_OBJECTS"); text != "" {
		value, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		objects = value
	}
	return &life{t: t, ctx: ctx, store: store, prefix: prefix, objects: objects}
}

func (l *life) run() {
	before := readChecks(l.t)
	l.api = startAPIServer(l.t, l.store, l.prefix)
	l.t.Cleanup(func() { l.api.stop() })
	l.api.defineWidgets(l.t, l.ctx)
	l.watcher = observe(l.t, l.api)

	l.chapter("create", func() { l.create(0, l.objects) })
	l.chapter("pages", func() { l.readsOfStore(l.pages) })
	l.chapter("initial events", l.initialEvents)
	l.chapter("conflicts", l.conflicts)
	l.chapter("finalizer", l.finalizer)
	l.chapter("checks", func() { awaitChecks(l.t, l.ctx, before, 2) })
	l.chapter("compaction", l.compaction)
	l.chapter("observed", func() { l.watcher.expect(l.ctx, l.acknowledged, 1) })
	readChecks(l.t).expectNoTrouble(l.t, before)

	l.chapter("kill -9", l.killInTheMiddle)
	l.chapter("observed", func() { l.watcher.expect(l.ctx, l.acknowledged, 1) })
	// While the store was down checks could not be made. That is no difference, and it is over.
	down := readChecks(l.t)
	down.expectNoDifference(l.t, before)
	l.chapter("checks", func() { awaitChecks(l.t, l.ctx, down, 1) })

	l.chapter("restart of the API server", l.restart)
	l.chapter("pages", func() { l.pages() })
	l.chapter("update", func() { l.updateAll(50) })
	// The new API server has no history from before its start, so the observer had to list once more.
	l.chapter("observed", func() { l.watcher.expect(l.ctx, l.acknowledged, 2) })
	l.chapter("checks", func() { awaitChecks(l.t, l.ctx, readChecks(l.t).keepTrouble(down), 1) })
}

func (l *life) chapter(name string, tell func()) {
	l.t.Helper()
	start := time.Now()
	tell()
	l.t.Logf("%-26s %6.1f s", name, time.Since(start).Seconds())
}

func widget(n int) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": widgets.Group + "/" + widgets.Version, "kind": "Widget",
		"metadata": map[string]any{
			"name": fmt.Sprintf("widget-%05d", n), "namespace": fmt.Sprintf("ns-%d", n%namespaces),
			"labels": map[string]any{"parity": strconv.Itoa(n % 2)},
		},
		"spec": map[string]any{"number": int64(n), "text": strings.Repeat("x", 200)},
	}}
}

func (l *life) acknowledge(object *unstructured.Unstructured) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.acknowledged = append(l.acknowledged, number(object.GetResourceVersion()))
	if len(l.acknowledged) == l.milestoneAt {
		close(l.milestone)
	}
}

func (l *life) acknowledgements() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return len(l.acknowledged)
}

// reach gives what is closed once `more` revisions are acknowledged from now on.
func (l *life) reach(more int) <-chan struct{} {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.milestoneAt, l.milestone = len(l.acknowledged)+more, make(chan struct{})
	return l.milestone
}

// create makes the widgets from first to last; it tries again while the store is away, and takes "already exists" then
// as what it is: the answer got lost. It returns how many creations failed at first.
func (l *life) create(first, last int) int {
	var failed atomic.Int64
	l.parallel(last-first, func(n int) error {
		object, tries := widget(first+n), 0
		l.begun.Add(1)
		return retry(l.ctx, func() error {
			tries++
			created, err := l.api.widgets.Namespace(object.GetNamespace()).Create(l.ctx, object, meta.CreateOptions{})
			if err == nil {
				l.acknowledge(created)
			}
			if tries > 1 && apierrors.IsAlreadyExists(err) {
				return nil
			}
			if err != nil && tries == 1 {
				failed.Add(1)
			}
			return err
		})
	})
	return int(failed.Load())
}

// parallel runs on several goroutines; after an error it does no more.
func (l *life) parallel(count int, do func(n int) error) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for n := int(next.Add(1)) - 1; n < count; n = int(next.Add(1)) - 1 {
				if err := do(n); err != nil {
					l.t.Errorf("%d of %d: %v", n, count, err)
					next.Store(int64(count))
				}
			}
		})
	}
	group.Wait()
}

// updateAll changes the first `count` widgets.
func (l *life) updateAll(count int) {
	l.parallel(count, func(n int) error {
		patched, err := l.api.widgets.Namespace(widget(n).GetNamespace()).Patch(l.ctx, widget(n).GetName(),
			"application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"at":"%d"}}`, time.Now().UnixNano()), meta.PatchOptions{})
		if err == nil {
			l.acknowledge(patched)
		}
		return err
	})
}

// compaction waits for the API server to compact, and checks that the store forgets and that lists say so.
func (l *life) compaction() {
	client := l.store.Client(l.t)
	eventually(l.t, l.ctx, "a compaction by the API server", func() error {
		_, err := client.Get(l.ctx, "absent", clientv3.WithRev(int64(l.acknowledged[0])))
		if err == nil {
			return fmt.Errorf("revision %d can still be read", l.acknowledged[0])
		}
		if !strings.Contains(err.Error(), "etcdserver: mvcc: required revision has been compacted") {
			l.t.Fatalf("read of an old revision: %v", err)
		}
		return nil
	})
	bookkeeping, err := client.Get(l.ctx, "compact_rev_key")
	if err != nil || len(bookkeeping.Kvs) != 1 {
		l.t.Fatalf("compact_rev_key: %v, %v", bookkeeping, err)
	}
	eventually(l.t, l.ctx, "an old list to expire", func() error {
		_, err := l.api.widgets.List(l.ctx, meta.ListOptions{
			ResourceVersion:      strconv.FormatUint(l.acknowledged[0], 10),
			ResourceVersionMatch: meta.ResourceVersionMatchExact, Limit: 10,
		})
		if !apierrors.IsResourceExpired(err) {
			return fmt.Errorf("list at revision %d: %v", l.acknowledged[0], err)
		}
		return nil
	})
	stored, err := client.Get(l.ctx, l.prefix+"/"+widgets.Group+"/"+widgets.Resource+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || stored.Count != int64(l.objects) {
		l.t.Fatalf("the store counts %v widgets, want %d: %v", stored, l.objects, err)
	}
}

// killInTheMiddle kills the store while widgets are created: some are acknowledged by then, some are cut off, and the
// rest comes after. All of them must be there in the end.
func (l *life) killInTheMiddle() {
	const more, first = 600, 100
	before, begun, enough := l.acknowledgements(), l.begun.Load(), l.reach(first)
	created := make(chan int, 1)
	go func() { created <- l.create(l.objects, l.objects+more) }()
	select {
	case <-enough:
	case <-l.ctx.Done():
		l.t.Fatalf("%d widgets were created, waited for %d", l.acknowledgements()-before, first)
	}
	l.store.Kill()
	atKill := l.acknowledgements() - before
	underway := int(l.begun.Load()-begun) - atKill
	l.store.Restart()
	failed := <-created
	after := l.acknowledgements() - before - atKill
	if atKill < first || underway < 1 || after < workers {
		l.t.Errorf("the kill was not in the middle: %d creations were acknowledged before it, %d under way, %d followed", atKill, underway, after)
	}
	// The API server tries some again by itself.
	l.t.Logf("%d creations before the kill, %d under way, %d told to fail, %d acknowledged after it", atKill, underway, failed, after)
	l.objects += more
	l.expectObjects()
}

func (l *life) restart() {
	l.watcher.pause()
	l.api.stop()
	listFromCacheSnapshots(l.t, true)
	l.api = startAPIServer(l.t, l.store, l.prefix)
	l.api.awaitWidgets(l.t, l.ctx)
	l.watcher.resume(l.api)
	l.expectObjects()
}

func (l *life) expectObjects() {
	l.t.Helper()
	list, err := l.api.widgets.List(l.ctx, meta.ListOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	if len(list.Items) != l.objects {
		l.t.Fatalf("%d objects, want %d", len(list.Items), l.objects)
	}
}
