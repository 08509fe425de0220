package differential

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Step is one thing to do on both sides: exactly one of call, create, cancel and ignoredCancel is set, or none, which
// makes it a mere drain.
type Step struct {
	// drain before the step, so that it cannot race with deliveries.
	drain bool
	call  proto.Message

	// stream on which the watch steps act.
	stream int
	create *pb.WatchCreateRequest
	// compacted says that the start of `create` lies below the compact revision.
	compacted     bool
	cancel        *int64
	ignoredCancel *int64
}

// textBytesMax bounds what a failure prints of one request or answer.
const textBytesMax = 6_000

func (s Step) String() string {
	switch {
	case s.call != nil:
		name := fmt.Sprintf("%T", s.call)
		return clip(name + "{" + printText(s.call) + "}")
	case s.create != nil:
		return clip(fmt.Sprintf("watch on stream %d {%s}", s.stream, printText(s.create)))
	case s.cancel != nil:
		return fmt.Sprintf("cancel watcher %d on stream %d", *s.cancel, s.stream)
	case s.ignoredCancel != nil:
		return fmt.Sprintf("cancel unknown watcher %d on stream %d", *s.ignoredCancel, s.stream)
	default:
		return "drain"
	}
}

func clip(text string) string {
	if len(text) <= textBytesMax {
		return text
	}
	return fmt.Sprintf("%s … %d bytes more", text[:textBytesMax], len(text)-textBytesMax)
}
