package differential

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Difference is an answer, an event or a check of a stream in which the two sides do not agree.
type Difference struct {
	// Kind is the same for the same difference in a shorter sequence.
	Kind string
	text string
}

func (d *Difference) Error() string { return d.text }

// Runner sends steps to both sides and ends with the first difference: the stores may differ from there on.
type Runner struct {
	pair  *pair
	world *world
	// done holds all steps so far, the failing one included.
	done []Step
	// requests counts what was sent to each side and compared; seen the same by kind, so that a run can show that it was
	// not idle.
	requests int
	seen     map[string]int
}

func newRunner(pair *pair) *Runner {
	return &Runner{pair: pair, world: newWorld(), seen: map[string]int{}}
}

// Do does one step. What would race with deliveries is drained before; while an alarm forbids that, it is left out.
func (r *Runner) Do(step Step) error {
	if r.world.mustDrain(step) {
		if r.world.barred() {
			return nil
		}
		if err := r.drain(); err != nil {
			return err
		}
	}
	r.done = append(r.done, step)
	switch {
	case step.drain && !r.world.barred():
		return r.drain()
	case len(step.calls) == 1:
		return r.call(step.calls[0])
	case len(step.calls) > 1:
		return r.burst(step.calls)
	case step.create != nil:
		return r.create(step)
	case step.cancel != nil:
		return r.cancel(step.stream, *step.cancel)
	case step.restart != "":
		r.pair.restart(step.restart)
		r.world.restarted(step.restart)
	}
	return nil
}

// LogSeen prints how much was compared, by kind of request and refusal.
func (r *Runner) LogSeen(t testing.TB) {
	t.Helper()
	for _, kind := range slices.Sorted(maps.Keys(r.seen)) {
		t.Logf("%7d %s", r.seen[kind], kind)
	}
}

func (r *Runner) call(request proto.Message) error {
	if !r.world.hasAnswer(request) {
		return nil
	}
	left, right := both(r, func(s *side) answer { return s.call(request) })
	return r.compareAnswers(request, left, right)
}

// burst sends requests that only read at the same time.
func (r *Runner) burst(requests []proto.Message) error {
	requests = slices.DeleteFunc(slices.Clone(requests), func(request proto.Message) bool { return !r.world.hasAnswer(request) })
	all := func(s *side) []answer {
		answers := make([]answer, len(requests))
		var group sync.WaitGroup
		for n, request := range requests {
			group.Go(func() { answers[n] = s.call(request) })
		}
		group.Wait()
		return answers
	}
	left, right := both(r, all)
	for n, request := range requests {
		if err := r.compareAnswers(request, left[n], right[n]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runner) compareAnswers(request proto.Message, left, right answer) error {
	kind := strings.TrimPrefix(fmt.Sprintf("%T", unwrapped(request)), "*etcdserverpb.")
	if left.status != nil {
		kind += " refused: " + left.status.Message()
	}
	for _, answer := range []answer{left, right} {
		if answer.message != nil {
			normalise(unwrapped(request), answer.message)
		}
	}
	r.requests++
	if err := r.compare(kind, left.wire(), right.wire(), left.String(), right.String); err != nil {
		return err
	}
	if left.message != nil {
		r.world.observe(request, left.message)
	}
	return nil
}

func (r *Runner) create(step Step) error {
	ack, err := r.acknowledged("watch creation", func(s *side) (*pb.WatchResponse, error) {
		return s.streams[step.stream].create(step.create)
	})
	if err != nil {
		return err
	}
	r.world.created(step.stream, ack)
	start := step.create.StartRevision
	if ack.Canceled || start <= 0 || start >= r.world.compacted {
		return nil
	}
	_, err = r.acknowledged("cancel after compaction", func(s *side) (*pb.WatchResponse, error) {
		return s.streams[step.stream].awaitCompacted(ack.WatchId)
	})
	r.world.cancelled(step.stream, ack.WatchId)
	return err
}

func (r *Runner) cancel(stream int, id int64) error {
	if !slices.Contains(r.world.live[stream], id) {
		r.requests++
		for _, side := range r.pair.sides {
			if err := side.streams[stream].ignoredCancel(id); err != nil {
				return r.failed("cancel", "%s: %v", side.name, err)
			}
		}
		return nil
	}
	_, err := r.acknowledged("cancel acknowledgement", func(s *side) (*pb.WatchResponse, error) {
		return s.streams[stream].cancel(id)
	})
	r.world.cancelled(stream, id)
	return err
}

func (r *Runner) acknowledged(kind string, ask func(*side) (*pb.WatchResponse, error)) (*pb.WatchResponse, error) {
	type outcome struct {
		ack *pb.WatchResponse
		err error
	}
	left, right := both(r, func(s *side) outcome {
		ack, err := ask(s)
		return outcome{ack, err}
	})
	r.requests++
	if left.err != nil || right.err != nil {
		return nil, r.failed(kind, "%s: left %v, right %v", kind, left.err, right.err)
	}
	for _, ack := range []*pb.WatchResponse{left.ack, right.ack} {
		normalise(nil, ack)
	}
	name := kind
	if left.ack.Canceled && left.ack.CancelReason != "" {
		name += " refused: " + left.ack.CancelReason
	}
	right1 := func() string { return printText(right.ack) }
	return left.ack, r.compare(name, wire(left.ack), wire(right.ack), lazily(left.ack), right1)
}

// drain puts the barrier and compares what every watcher has received since the last one.
func (r *Runner) drain() error {
	if err := r.call(&pb.PutRequest{Key: barrierKey, Value: fmt.Append(nil, r.world.head)}); err != nil {
		return err
	}
	revision := r.world.head
	for n := range streamCount {
		type outcome struct {
			transcripts map[int64][]delivery
			err         error
		}
		drain := func(s *side, atLeast map[int64]int) outcome {
			transcripts, err := s.streams[n].drain(revision, n != futureStream, atLeast)
			return outcome{transcripts, err}
		}
		var left, right outcome
		if n == futureStream {
			left = drain(r.pair.sides[0], nil)
			counts := map[int64]int{}
			for id, transcript := range left.transcripts {
				counts[id] = len(transcript)
			}
			right = drain(r.pair.sides[1], counts)
		} else {
			left, right = both(r, func(s *side) outcome { return drain(s, nil) })
		}
		if left.err != nil || right.err != nil {
			return r.failed("stream", "stream %d: left %v, right %v", n, left.err, right.err)
		}
		if err := r.compareTranscripts(n, left.transcripts, right.transcripts); err != nil {
			return err
		}
	}
	r.world.drained()
	return nil
}

func (r *Runner) compareTranscripts(stream int, left, right map[int64][]delivery) error {
	ids := slices.Concat(slices.Collect(maps.Keys(left)), slices.Collect(maps.Keys(right)))
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		for n := range max(len(left[id]), len(right[id])) {
			a, b := item(left[id], n), item(right[id], n)
			if err := r.compare("watch event", a.wire, b.wire, a, b.String); err != nil {
				err := err.(*Difference)
				err.text = fmt.Sprintf("event %d of watcher %d on stream %d since the last drain: %s", n, id, stream, err.text)
				return err
			}
		}
	}
	return nil
}

func item(transcript []delivery, n int) delivery {
	if n < len(transcript) {
		return transcript[n]
	}
	return delivery{}
}

// lazily prints a message only when it is asked to.
func lazily(message proto.Message) fmt.Stringer { return printed{message} }

type printed struct{ message proto.Message }

func (p printed) String() string { return printText(p.message) }

// compare counts, and reports a difference between the bytes, in words.
func (r *Runner) compare(kind, left, right string, leftText any, rightText func() string) error {
	r.seen[kind]++
	if left == right {
		return nil
	}
	return r.failed(kind, "%s differs\n left (%s): %s\nright (%s): %s", kind, r.pair.sides[0].name, clip(fmt.Sprint(leftText)),
		r.pair.sides[1].name, clip(rightText()))
}

func (r *Runner) failed(kind, format string, args ...any) error {
	step := "the start"
	if len(r.done) > 0 {
		step = r.done[len(r.done)-1].String()
	}
	return &Difference{kind, fmt.Sprintf("step %d: %s\n%s", len(r.done), step, fmt.Sprintf(format, args...))}
}

// both asks the two sides at the same time.
func both[T any](r *Runner, ask func(*side) T) (left, right T) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		right = ask(r.pair.sides[1])
	}()
	left = ask(r.pair.sides[0])
	<-answered
	return left, right
}
