package kubernetes

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
)

// pages lists by continue tokens while others write, at the first page's revision, with exact remaining counts; then
// lists that revision again, exactly. It returns how many lists that took.
func (l *life) pages() (lists int) {
	var names []string
	options, revision := meta.ListOptions{Limit: pageSize}, ""
	for {
		lists++
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
	return lists + 1
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
