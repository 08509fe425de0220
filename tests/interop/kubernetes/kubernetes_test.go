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
	"k8s.io/apimachinery/pkg/watch"
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
// In the last run the API server answers no lists from snapshots of its cache, so that every page and every list at an
// exact revision is read from the store.
func TestAPIServer(t *testing.T) {
	for _, run := range []struct {
		prefix        string
		cacheSnapshot bool
	}{
		{"/registry", true}, {"/registry/events", true}, {"/registry/leases", false},
	} {
		t.Run(strings.TrimPrefix(run.prefix, "/"), func(t *testing.T) {
			featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate,
				features.ListFromCacheSnapshot, run.cacheSnapshot)
			ctx := harness.Context(t, runTimeout)
			store := harness.StartUnderTest(t, "--watch-progress-notify-interval=1s")
			newLife(t, ctx, store, run.prefix).run()
		})
	}
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

	mutex        sync.Mutex
	acknowledged []uint64
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
	l.chapter("pages", l.pages)
	l.chapter("initial events", l.initialEvents)
	l.chapter("conflicts", l.conflicts)
	l.chapter("finalizer", l.finalizer)
	l.chapter("checks", func() { awaitChecks(l.t, l.ctx, before, 2) })
	l.chapter("compaction", l.compaction)
	l.chapter("observed", func() { l.watcher.expect(l.ctx, l.acknowledged) })

	l.chapter("kill -9", l.killInTheMiddle)
	l.chapter("observed", func() { l.watcher.expect(l.ctx, l.acknowledged) })
	// While the store was down checks could not succeed, so count anew.
	l.chapter("checks", func() { awaitChecks(l.t, l.ctx, readChecks(l.t), 1) })

	l.chapter("restart of the API server", l.restart)
	l.chapter("update", func() { l.updateAll(50) })
	l.chapter("observed", func() { l.watcher.expect(l.ctx, l.acknowledged) })
	l.chapter("checks", func() { awaitChecks(l.t, l.ctx, readChecks(l.t), 1) })
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
}

// create makes the widgets from first to last; it tries again while the store is away, and takes "already exists" then
// as what it is: the answer got lost.
func (l *life) create(first, last int) {
	l.parallel(last-first, func(n int) error {
		object, tries := widget(first+n), 0
		return retry(l.ctx, func() error {
			tries++
			created, err := l.api.widgets.Namespace(object.GetNamespace()).Create(l.ctx, object, meta.CreateOptions{})
			if err == nil {
				l.acknowledge(created)
			}
			if tries > 1 && apierrors.IsAlreadyExists(err) {
				return nil
			}
			return err
		})
	})
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

// pages lists by continue tokens while others write, at the first page's revision, with exact remaining counts; then
// lists that revision again, exactly.
func (l *life) pages() {
	var names []string
	options, revision := meta.ListOptions{Limit: pageSize}, ""
	for {
		page, err := l.api.widgets.List(l.ctx, options)
		if err != nil {
			l.t.Fatal(err)
		}
		if revision == "" {
			revision = page.GetResourceVersion()
		}
		for n := range page.Items {
			names = append(names, nameOf(&page.Items[n]))
			if number(page.Items[n].GetResourceVersion()) > number(revision) {
				l.t.Fatalf("a page at %s holds %v", revision, page.Items[n])
			}
		}
		left := int64(l.objects - len(names))
		remaining := page.GetRemainingItemCount()
		if (left == 0) != (remaining == nil) || (remaining != nil && *remaining != left) || page.GetResourceVersion() != revision {
			l.t.Fatalf("after %d of %d: remainingItemCount %v, revision %s, first page's %s",
				len(names), l.objects, remaining, page.GetResourceVersion(), revision)
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			break
		}
		l.updateAll(3)
	}
	exact, err := l.api.widgets.List(l.ctx, meta.ListOptions{
		ResourceVersion: revision, ResourceVersionMatch: meta.ResourceVersionMatchExact, Limit: int64(l.objects),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if len(exact.Items) != l.objects || exact.GetResourceVersion() != revision {
		l.t.Fatalf("list at exactly %s: %d objects at %s", revision, len(exact.Items), exact.GetResourceVersion())
	}
	for n := range exact.Items {
		if nameOf(&exact.Items[n]) != names[n] {
			l.t.Fatalf("object %d is %s by page and %s in the exact list", n, names[n], nameOf(&exact.Items[n]))
		}
	}
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

// initialEvents asks for the state by watch, up to the bookmark that ends it: the API server has to learn by a progress
// notification that its cache is fresh.
func (l *life) initialEvents() {
	yes := true
	events, err := l.api.widgets.Watch(l.ctx, meta.ListOptions{
		SendInitialEvents: &yes, ResourceVersionMatch: meta.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	defer events.Stop()
	for added := 0; ; {
		event, ok := <-events.ResultChan()
		if !ok {
			l.t.Fatalf("the watch ended after %d initial events", added)
		}
		switch event.Type {
		case watch.Added:
			added++
		case watch.Bookmark:
			object := event.Object.(*unstructured.Unstructured)
			if object.GetAnnotations()[meta.InitialEventsAnnotationKey] != "true" {
				continue
			}
			if added != l.objects {
				l.t.Fatalf("%d initial events for %d objects", added, l.objects)
			}
			return
		default:
			l.t.Fatalf("%s among the initial events", event.Type)
		}
	}
}

// conflicts increments one counter from many writers: no update may be lost, and a stale one must be refused.
func (l *life) conflicts() {
	const increments = 60
	client := l.api.widgets.Namespace("ns-0")
	stale, err := client.Get(l.ctx, widget(0).GetName(), meta.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	conflicts := 0
	l.parallel(increments, func(int) error {
		return retry(l.ctx, func() error {
			object, err := client.Get(l.ctx, stale.GetName(), meta.GetOptions{})
			if err != nil {
				return err
			}
			count, _, err := unstructured.NestedInt64(object.Object, "spec", "count")
			if err != nil {
				return err
			}
			if err := unstructured.SetNestedField(object.Object, count+1, "spec", "count"); err != nil {
				return err
			}
			updated, err := client.Update(l.ctx, object, meta.UpdateOptions{})
			if err != nil {
				l.mutex.Lock()
				conflicts++
				l.mutex.Unlock()
				return err
			}
			l.acknowledge(updated)
			return nil
		})
	})
	object, err := client.Get(l.ctx, stale.GetName(), meta.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	if count, _, _ := unstructured.NestedInt64(object.Object, "spec", "count"); count != increments {
		l.t.Fatalf("%d increments left the counter at %d", increments, count)
	}
	if _, err := client.Update(l.ctx, stale, meta.UpdateOptions{}); !apierrors.IsConflict(err) {
		l.t.Fatalf("a stale update: %v", err)
	}
	l.t.Logf("%d conflicts", conflicts)
}

// finalizer keeps a deleted object until it is taken off.
func (l *life) finalizer() {
	object := widget(l.objects + 1_000_000)
	object.SetFinalizers([]string{"interop.basalt/keep"})
	client := l.api.widgets.Namespace(object.GetNamespace())
	if _, err := client.Create(l.ctx, object, meta.CreateOptions{}); err != nil {
		l.t.Fatal(err)
	}
	if err := client.Delete(l.ctx, object.GetName(), meta.DeleteOptions{}); err != nil {
		l.t.Fatal(err)
	}
	kept, err := client.Get(l.ctx, object.GetName(), meta.GetOptions{})
	if err != nil || kept.GetDeletionTimestamp() == nil {
		l.t.Fatalf("a deleted object with a finalizer: %v, %v", kept, err)
	}
	kept.SetFinalizers(nil)
	if _, err := client.Update(l.ctx, kept, meta.UpdateOptions{}); err != nil {
		l.t.Fatal(err)
	}
	if _, err := client.Get(l.ctx, object.GetName(), meta.GetOptions{}); !apierrors.IsNotFound(err) {
		l.t.Fatalf("after its finalizer went: %v", err)
	}
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

// killInTheMiddle kills the store while widgets are created; all of them must be there in the end.
func (l *life) killInTheMiddle() {
	const more = 200
	before := len(l.acknowledged)
	created := make(chan struct{})
	go func() {
		defer close(created)
		l.create(l.objects, l.objects+more)
	}()
	eventually(l.t, l.ctx, "a part of the creations", func() error {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		if done := len(l.acknowledged) - before; done < more/4 {
			return fmt.Errorf("%d are done", done)
		}
		return nil
	})
	l.store.Kill()
	l.store.Restart()
	<-created
	l.objects += more
	l.expectObjects()
}

func (l *life) restart() {
	l.watcher.pause()
	l.api.stop()
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
