package differential

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Step is one thing to do on both sides: exactly one field is set (stream goes with create and cancel).
type Step struct {
	// calls has one request, or several that only read: those are sent at the same time.
	calls []proto.Message
	// drain waits until all watches have delivered everything, and compares that.
	drain bool
	// stream on which the watch steps act.
	stream int
	create *pb.WatchCreateRequest
	cancel *int64
	// restart is "stop", "kill" or "streams".
	restart string
}

const (
	restartStop = "stop"
	restartKill = "kill"
	// restartStreams ends connections and watch streams alone.
	restartStreams = "streams"
)

// textBytesMax bounds what a failure prints of one request or answer.
const textBytesMax = 6_000

func call(request proto.Message) Step { return Step{calls: []proto.Message{request}} }

func (s Step) String() string { return clip(encodeStep(s)) }

func clip(text string) string {
	if len(text) <= textBytesMax {
		return text
	}
	return fmt.Sprintf("%s … %d bytes more", text[:textBytesMax], len(text)-textBytesMax)
}

// printText prints any message. prototext's white space is stable within one binary, and both sides are printed by one.
func printText(message proto.Message) string {
	text, err := prototext.Marshal(message)
	if err != nil {
		return fmt.Sprintf("not printable: %v", err)
	}
	return string(text)
}
