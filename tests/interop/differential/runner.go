package differential

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Runner sends each step to both sides and fails the test where answers differ: by default at the first difference,
// since the stores may differ from there on.
type Runner struct {
	t           *testing.T
	seed        uint64
	left, right *side
	generator   *Generator
	index       int
	step        Step
	// seen counts what was compared, so that a run can show that it was not idle.
	seen map[string]int
	// differencesMax is how many differences are reported before the run ends.
	differencesMax, differences int
}

// Run sends the next `requests` steps of the seed and drains all watches.
func (r *Runner) Run(requests int) {
	r.t.Helper()
	for range requests {
		r.step = r.generator.Next()
		r.do(r.step)
		r.index++
	}
	r.step = Step{drain: true}
	r.do(r.step)
}

// Reconnect goes on with new connections, as after a restart: all watchers are gone.
func (r *Runner) Reconnect(left, right *side) {
	r.left, r.right = left, right
	r.generator.watches = watchPlan{}
}

// LogSeen prints how much was compared, by kind of request and refusal.
func (r *Runner) LogSeen() {
	r.t.Helper()
	for _, kind := range slices.Sorted(maps.Keys(r.seen)) {
		r.t.Logf("%7d %s", r.seen[kind], kind)
	}
}

func (r *Runner) do(step Step) {
	r.t.Helper()
	if step.drain {
		r.drain()
	}
	switch {
	case step.call != nil:
		r.call(step.call)
	case step.create != nil:
		r.create(step)
	case step.cancel != nil:
		r.acknowledged("cancel acknowledgement", func(s *side) (*pb.WatchResponse, error) {
			return s.streams[step.stream].cancel(*step.cancel)
		})
		r.generator.watches.cancelled(step.stream, *step.cancel)
	case step.ignoredCancel != nil:
		for _, side := range []*side{r.left, r.right} {
			if err := side.streams[step.stream].ignoredCancel(*step.ignoredCancel); err != nil {
				r.fail("%s: %v", side.name, err)
			}
		}
	}
}

func (r *Runner) call(request proto.Message) {
	r.t.Helper()
	left, right := both(r, func(s *side) answer { return s.call(request) })
	kind := fmt.Sprintf("%T", request)
	if left.status != nil {
		kind += " refused: " + left.status.Message()
	}
	r.compare(kind, printAnswer(request, left), printAnswer(request, right))
	if left.message != nil {
		r.generator.Observe(request, left.message)
	}
}

func (r *Runner) create(step Step) {
	r.t.Helper()
	ack := r.acknowledged("watch creation", func(s *side) (*pb.WatchResponse, error) {
		return s.streams[step.stream].create(step.create)
	})
	r.generator.watches.created(step.stream, ack)
	if !step.compacted || ack.Canceled {
		return
	}
	r.acknowledged("cancel after compaction", func(s *side) (*pb.WatchResponse, error) {
		return s.streams[step.stream].awaitCompacted(ack.WatchId)
	})
	r.generator.watches.cancelled(step.stream, ack.WatchId)
}

func (r *Runner) acknowledged(kind string, ask func(*side) (*pb.WatchResponse, error)) *pb.WatchResponse {
	r.t.Helper()
	type outcome struct {
		ack *pb.WatchResponse
		err error
	}
	left, right := both(r, func(s *side) outcome {
		ack, err := ask(s)
		return outcome{ack, err}
	})
	if left.err != nil || right.err != nil {
		r.fail("%s: left %v, right %v", kind, left.err, right.err)
	}
	if left.ack.Canceled && left.ack.CancelReason != "" {
		kind += " refused: " + left.ack.CancelReason
	}
	r.compare(kind, printMessage(left.ack), printMessage(right.ack))
	return left.ack
}

// drain puts the barrier and compares what every watcher has received since the last one.
func (r *Runner) drain() {
	r.t.Helper()
	r.call(&pb.PutRequest{Key: barrierKey, Value: fmt.Append(nil, r.index)})
	revision := r.generator.head
	for n := range streamCount {
		type outcome struct {
			transcripts map[int64][]string
			err         error
		}
		left, right := both(r, func(s *side) outcome {
			transcripts, err := s.streams[n].drain(revision, n != futureStream)
			return outcome{transcripts, err}
		})
		if left.err != nil || right.err != nil {
			r.fail("stream %d: left %v, right %v", n, left.err, right.err)
		}
		r.compareTranscripts(n, left.transcripts, right.transcripts)
	}
}

func (r *Runner) compareTranscripts(stream int, left, right map[int64][]string) {
	r.t.Helper()
	ids := slices.Concat(slices.Collect(maps.Keys(left)), slices.Collect(maps.Keys(right)))
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		for n := range max(len(left[id]), len(right[id])) {
			name := fmt.Sprintf("event %d of watcher %d on stream %d since the last drain", n, id, stream)
			r.compareAs("watch event", name, item(left[id], n), item(right[id], n))
		}
	}
}

func item(transcript []string, n int) string {
	if n < len(transcript) {
		return transcript[n]
	}
	return "nothing"
}

func (r *Runner) compare(kind, left, right string) {
	r.t.Helper()
	r.compareAs(kind, kind, left, right)
}

func (r *Runner) compareAs(kind, name, left, right string) {
	r.t.Helper()
	r.seen[kind]++
	if left == right {
		return
	}
	r.differences++
	report := r.report
	if r.differences >= r.differencesMax {
		report = r.fail
	}
	report("%s differs\n left (%s): %s\nright (%s): %s\nfrom byte %s", name, r.left.name, clip(left), r.right.name,
		clip(right), firstDifference(left, right))
}

// firstDifference quotes both texts from shortly before the byte in which they differ.
func firstDifference(left, right string) string {
	const before, after = 40, 80
	at := 0
	for at < min(len(left), len(right)) && left[at] == right[at] {
		at++
	}
	quote := func(text string) string { return text[max(0, at-before):min(len(text), at+after)] }
	return fmt.Sprintf("%d: left %q, right %q", at, quote(left), quote(right))
}

// fail ends the run.
func (r *Runner) fail(format string, args ...any) {
	r.t.Helper()
	r.report(format, args...)
	r.t.FailNow()
}

// report marks the test as failed and goes on.
func (r *Runner) report(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("seed %d, request %d: %v\n%s\nreplay with DIFF_SEED=%d DIFF_REQUESTS=%d",
		r.seed, r.index, r.step, fmt.Sprintf(format, args...), r.seed, r.index+1)
}

// both asks the two sides at the same time.
func both[T any](r *Runner, ask func(*side) T) (left, right T) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		right = ask(r.right)
	}()
	left = ask(r.left)
	<-answered
	return left, right
}
