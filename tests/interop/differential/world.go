package differential

import (
	"bytes"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// world is what is known of both stores, from answers that were equal.
type world struct {
	head, compacted int64
	// compactions holds the revisions of all compactions since the last start; unhashed those of which the hash is a
	// race: their compaction may still run, or may have been run again by a start (etcd-contract 52).
	compactions []int64
	unhashed    map[int64]bool
	// compacting says that the last compaction may still run.
	compacting bool
	// compactedZero says that Compact(0) has succeeded.
	compactedZero bool
	leases        []int64
	// live are the watchers of each stream.
	live [streamCount][]int64
	// alarmed says that an alarm is armed, so that no barrier can be put.
	alarmed bool
	// guarded says that authentication is on, so that none can be put either.
	guarded bool
	// wrote and watched say what has happened since the last drain.
	wrote, watched bool
}

// barred says that no barrier can be put.
func (w *world) barred() bool { return w.alarmed || w.guarded }

func newWorld() *world { return &world{head: 1, unhashed: map[int64]bool{}} }

// observe takes note of an answer that both gave.
func (w *world) observe(request, response proto.Message) {
	w.head = max(w.head, headerOf(response).GetRevision())
	switch request := unwrapped(request).(type) {
	case *pb.AuthStatusRequest:
		w.guarded = response.(*pb.AuthStatusResponse).Enabled
	case *pb.AuthEnableRequest:
		w.guarded = true
	case *pb.AuthDisableRequest:
		w.guarded = false
	case *pb.PutRequest, *pb.DeleteRangeRequest, *pb.TxnRequest, *pb.LeaseRevokeRequest:
		w.wrote = true
	case *pb.CompactionRequest:
		w.compacted = max(w.compacted, request.Revision)
		w.compactions = append(w.compactions, request.Revision)
		w.compactedZero = w.compactedZero || request.Revision == 0
		// A compaction keeps its hash only if the one before it had ended.
		if !request.Physical || w.compacting {
			w.unhashed[request.Revision] = true
		}
		w.compacting = !request.Physical
	case *pb.LeaseGrantRequest:
		if request.TTL >= leaseTTL {
			w.leases = append(w.leases, request.ID)
		}
	case *pb.AlarmRequest:
		if request.Action == pb.AlarmRequest_ACTIVATE && request.Alarm != pb.AlarmType_NONE {
			w.alarmed = true
		}
		if request.Action == pb.AlarmRequest_GET && request.Alarm == pb.AlarmType_NONE {
			w.alarmed = len(response.(*pb.AlarmResponse).Alarms) > 0
		}
	}
}

// created notes the answer to a creation.
func (w *world) created(stream int, ack *pb.WatchResponse) {
	if ack.Created && !ack.Canceled {
		w.live[stream] = append(w.live[stream], ack.WatchId)
		w.watched = true
	}
}

// cancelled notes that a watcher is gone.
func (w *world) cancelled(stream int, id int64) {
	w.live[stream] = slices.DeleteFunc(w.live[stream], func(live int64) bool { return live == id })
}

func (w *world) drained() { w.wrote, w.watched = false, false }

// restarted forgets what a process knows. A start may run the last compaction again, after a kill also those before.
func (w *world) restarted(how string) {
	w.live = [streamCount][]int64{}
	w.drained()
	if how == restartStreams {
		return
	}
	w.compacting = len(w.compactions) > 0
	if how == restartKill {
		for _, revision := range w.compactions {
			w.unhashed[revision] = true
		}
	}
}

// hasAnswer says whether both sides must answer alike (see notAsked).
func (w *world) hasAnswer(request proto.Message) bool {
	switch request := unwrapped(request).(type) {
	case *pb.HashKVRequest:
		atHead := request.Revision == 0
		return !w.unhashed[request.Revision] && !(atHead && (w.compactedZero || w.unhashed[w.head]))
	case *pb.TxnRequest:
		_, twice := putsAfterDelete(request, false)
		return !twice
	default:
		return true
	}
}

// putsAfterDelete says whether a transaction deletes everything from a key on, and whether one of its puts comes after
// such a delete; `deleted` says that one came before.
func putsAfterDelete(txn *pb.TxnRequest, deleted bool) (deletes, puts bool) {
	deletes = deleted
	for _, branch := range [][]*pb.RequestOp{txn.Success, txn.Failure} {
		before := deleted
		for _, operation := range branch {
			switch request := operation.Request.(type) {
			case *pb.RequestOp_RequestDeleteRange:
				before = before || bytes.Equal(request.RequestDeleteRange.RangeEnd, []byte{0})
			case *pb.RequestOp_RequestPut:
				puts = puts || before
			case *pb.RequestOp_RequestTxn:
				nested, put := putsAfterDelete(request.RequestTxn, before)
				before, puts = before || nested, puts || put
			}
		}
		deletes = deletes || before
	}
	return deletes, puts
}

// mustDrain says whether a step would race with deliveries: a compaction or a cancellation with any of them (previous
// values are read when an event is sent), a creation with live events.
func (w *world) mustDrain(step Step) bool {
	switch {
	case step.create != nil:
		return w.wrote
	case step.restart == restartStreams:
		return false
	case step.cancel != nil, step.restart != "":
		return w.wrote || w.watched
	case len(step.calls) == 1:
		_, compaction := unwrapped(step.calls[0]).(*pb.CompactionRequest)
		return compaction && (w.wrote || w.watched)
	default:
		return false
	}
}
