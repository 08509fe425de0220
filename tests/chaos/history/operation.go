// Package history is what clients saw of a cluster: what they asked, when, and what they were told. It knows nothing of how a
// cluster works.
//
// All times are since the beginning of the record, by one monotonic clock.
package history

import "time"

// KV is a key as a store shows it.
type KV struct {
	Key, Value                    string
	Create, Mod, Version, LeaseID int64
}

// Outcome of a call.
type Outcome int

const (
	// Unknown: there was no answer, or one that leaves open whether it happened.
	Unknown Outcome = iota
	// Acknowledged: it was answered.
	Acknowledged
	// Refused: it certainly did not happen.
	Refused
)

// Never is when a call without an answer returns.
const Never = time.Duration(1<<63 - 1)

// Change is one put or delete of a write. The value of a put is used by no other change.
type Change struct {
	Key, Value string
	LeaseID    int64
	Delete     bool
}

// Compare is the condition of a write: the key's newest revision is Mod, 0 if it is not there.
type Compare struct {
	Key string
	Mod int64
}

// Write is a put, a delete or a transaction of several of them: all changes have one revision.
type Write struct {
	Member int
	// Life of the member that answered, by its number of starts; 0 if it is not known.
	Life         int
	Call, Return time.Duration
	Outcome      Outcome
	Error        string
	If           *Compare
	Changes      []Change
	// Succeeded is whether the condition held; true without one.
	Succeeded bool
	// Deleted is how many keys were deleted.
	Deleted int64
	// Revision of the store in the answer: that of the write if it changed anything.
	Revision int64
}

// Changed says whether the answer tells of a new revision.
func (w *Write) Changed() bool {
	if w.Outcome != Acknowledged || !w.Succeeded {
		return false
	}
	for _, change := range w.Changes {
		if !change.Delete {
			return true
		}
	}
	return w.Deleted > 0
}

// Read is an answered range; unanswered ones tell nothing and are not kept.
type Read struct {
	Member int
	// Life of the member that answered, by its number of starts; 0 if it is not known.
	Life         int
	Call, Return time.Duration
	Serializable bool
	Key, End     string
	// At is the revision asked for; 0 is the newest.
	At int64
	// Revision of the store in the answer.
	Revision int64
	KVs      []KV
	Count    int64
}

// Event is a change as a watch tells it.
type Event struct {
	Delete bool
	KV     KV
	// Previous is the key as it was before; nil if it was not there or is not told.
	Previous *KV
}

// Lease is the life of one as its owner saw it.
type Lease struct {
	ID  int64
	Key string
	// TTL in seconds as granted.
	TTL      int64
	Granted  time.Duration // when the grant was called
	Renewals []Renewal
	// Revoked is when the owner called for its end; 0 if it never did.
	Revoked time.Duration
	// Lost says that a renewal was answered with the news that the lease has ended, and when that answer came.
	Lost time.Duration
	// Attached is whether the put of the key was acknowledged.
	Attached bool
}

// Renewal is an answered keepalive.
type Renewal struct {
	Send, Answer time.Duration
	TTL          int64
}

// Watch is one watcher through all its resumptions.
type Watch struct {
	Name     string
	Key, End string
	// Previous says that it asked for the previous values.
	Previous bool
	Segments []Segment
	// Awaited says that it had to hear of all that happened; one that has not is late.
	Awaited bool
}

// Segment is a watcher between two resumptions.
type Segment struct {
	Member int
	// Start is the first revision that it asked for.
	Start int64
	// CompactRevision is not 0 if the watch was ended since its start is compacted.
	CompactRevision int64
	Responses       []Response
}

// Response of a watch.
type Response struct {
	At       time.Duration
	Revision int64 // of the header
	Events   []Event
	// Progress is a promise that everything up to Revision has been told.
	Progress bool
}

// State is the store at one revision.
type State map[string]KV

// Record is everything.
type Record struct {
	Seed uint64
	// First is the revision of Base, the store before all this.
	First int64
	Base  State
	// Last is a revision acknowledged when all was over.
	Last   int64
	Writes []*Write
	Reads  []*Read
	Leases []*Lease
	// Events are all that happened behind First, told by one watcher that began first; a revision's events stand together.
	Events []Told
	// Watches are all others.
	Watches []*Watch
	// Hashes of the members at Last, by name.
	Hashes map[string]uint32
	// Compacted are the calls to compact.
	Compacted []Compaction
}

// Compaction was asked for.
type Compaction struct {
	Call     time.Duration
	Revision int64
}

// Told is one event with the time when it was first heard.
type Told struct {
	At time.Duration
	Event
}
