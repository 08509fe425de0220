package kubernetes

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// watchSeconds ends every watch soon, because the API server sends a bookmark shortly before that, else once a minute.
const watchSeconds = 6

// observer follows all widgets as an informer does: list, watch from there with bookmarks, and again from the last
// revision when the watch ends; list anew only when told that the revision is too old.
type observer struct {
	t    *testing.T
	api  *apiServer
	stop context.CancelFunc
	done chan struct{}

	mutex sync.Mutex
	// objects is the state that the events add up to: revision by namespace and name.
	objects map[string]uint64
	// seen holds the revision of every event; lists holds those of lists, which stand for all events up to them. There
	// may be only as many lists as `expect` allows, else a store that forgets history would pass.
	seen      map[uint64]bool
	lists     []uint64
	revision  uint64
	bookmarks int
	failure   error
}

func observe(t *testing.T, api *apiServer) *observer {
	t.Helper()
	o := &observer{t: t, objects: map[string]uint64{}, seen: map[uint64]bool{}}
	o.resume(api)
	t.Cleanup(o.pause)
	return o
}

// pause ends the watch, so that the API server need not wait for it when it stops.
func (o *observer) pause() {
	o.stop()
	<-o.done
}

// resume goes on at the last revision, perhaps with another life of the API server.
func (o *observer) resume(api *apiServer) {
	ctx, stop := context.WithCancel(context.Background())
	o.api, o.stop, o.done = api, stop, make(chan struct{})
	go o.follow(ctx)
}

func (o *observer) follow(ctx context.Context) {
	defer close(o.done)
	for fresh := len(o.lists) == 0; ctx.Err() == nil; {
		if fresh && o.list(ctx) != nil {
			continue
		}
		fresh = o.watch(ctx)
	}
}

func (o *observer) list(ctx context.Context) error {
	list, err := o.api.widgets.List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.revision = number(list.GetResourceVersion())
	o.lists = append(o.lists, o.revision)
	o.objects = revisions(list.Items)
	return nil
}

// watch returns true if the next start has to list.
func (o *observer) watch(ctx context.Context) bool {
	o.mutex.Lock()
	start := o.revision
	o.mutex.Unlock()
	seconds := int64(watchSeconds)
	events, err := o.api.widgets.Watch(ctx, meta.ListOptions{
		ResourceVersion: strconv.FormatUint(start, 10), AllowWatchBookmarks: true, TimeoutSeconds: &seconds,
	})
	if err != nil {
		return tooOld(err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			return tooOld(apierrors.FromObject(event.Object))
		}
		o.accept(event)
	}
	return false
}

func tooOld(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

func (o *observer) accept(event watch.Event) {
	object := event.Object.(*unstructured.Unstructured)
	revision := number(object.GetResourceVersion())
	o.mutex.Lock()
	defer o.mutex.Unlock()
	repeated := revision == o.revision && event.Type != watch.Bookmark
	if (revision < o.revision || repeated) && o.failure == nil {
		o.failure = fmt.Errorf("%s at %d after %d", event.Type, revision, o.revision)
	}
	o.revision = revision
	switch event.Type {
	case watch.Bookmark:
		o.bookmarks++
		return
	case watch.Deleted:
		delete(o.objects, nameOf(object))
	default:
		o.objects[nameOf(object)] = revision
	}
	o.seen[revision] = true
}

// expect waits until the observer's state is that of a fresh list, and checks that it has seen every acknowledged
// revision, by event or within one of at most `listsMax` lists.
func (o *observer) expect(ctx context.Context, acknowledged []uint64, listsMax int) {
	o.t.Helper()
	list, err := o.api.widgets.List(ctx, meta.ListOptions{})
	if err != nil {
		o.t.Fatal(err)
	}
	want := revisions(list.Items)
	eventually(o.t, ctx, "the observer to catch up", func() error {
		o.mutex.Lock()
		defer o.mutex.Unlock()
		if o.failure != nil {
			o.t.Fatalf("observer: %v", o.failure)
		}
		if missing, name := difference(want, o.objects); missing > 0 {
			return fmt.Errorf("%d objects differ, such as %s: listed at %d, observed at %d", missing, name, want[name], o.objects[name])
		}
		return nil
	})
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if len(o.lists) > listsMax {
		o.t.Errorf("the observer was told %d times that its revision is too old; it listed at %v", len(o.lists)-1, o.lists)
	}
	if o.bookmarks == 0 {
		o.t.Error("no bookmark has arrived")
	}
	for _, revision := range acknowledged {
		if !o.seen[revision] && !o.listedAfter(revision) {
			o.t.Fatalf("the observer has missed revision %d; it listed at %v", revision, o.lists)
		}
	}
	o.t.Logf("observer: %d events, %d bookmarks, lists at %v, %d objects", len(o.seen), o.bookmarks, o.lists, len(o.objects))
}

func (o *observer) listedAfter(revision uint64) bool {
	return len(o.lists) > 0 && o.lists[len(o.lists)-1] >= revision
}

func difference(a, b map[string]uint64) (count int, example string) {
	for name, revision := range a {
		if b[name] != revision {
			count, example = count+1, name
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			count, example = count+1, name
		}
	}
	return count, example
}

func revisions(items []unstructured.Unstructured) map[string]uint64 {
	result := make(map[string]uint64, len(items))
	for n := range items {
		result[nameOf(&items[n])] = number(items[n].GetResourceVersion())
	}
	return result
}

func nameOf(object *unstructured.Unstructured) string {
	return object.GetNamespace() + "/" + object.GetName()
}

func number(text string) uint64 {
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic("resource version is not a number: " + text)
	}
	return value
}
