package rows

import (
	"testing"
	"time"

	"basalt/tests/chaos/history"
	"basalt/tests/chaos/rig"
)

func acknowledged(member int, call, answer time.Duration) *history.Write {
	return &history.Write{Member: member, Call: call, Return: answer, Outcome: history.Acknowledged}
}

func unknown(member int, call time.Duration) *history.Write {
	return &history.Write{Member: member, Call: call, Return: history.Never}
}

var one, other = &rig.Member{Number: 1}, &rig.Member{Number: 2}

func TestWritesHaveResumedWhenEveryMemberAnsweredOneThatWasCalledSince(t *testing.T) {
	record := history.Record{Writes: []*history.Write{
		acknowledged(1, 90, 130), // called before
		unknown(1, 105),
		acknowledged(1, 110, 150),
		acknowledged(1, 115, 140),
	}}
	if _, all := resumed(record, 100, one, other); all {
		t.Error("one member has answered nothing")
	}
	if after, all := resumed(record, 100, one); !all || after != 40 {
		t.Errorf("resumed after %v, %v, want 40", after, all)
	}
	record.Writes = append(record.Writes, acknowledged(2, 120, 170))
	if after, all := resumed(record, 100, one, other); !all || after != 70 {
		t.Errorf("resumed after %v, %v, want that of the slower one, 70", after, all)
	}
}

func TestAGapReachesToBothEnds(t *testing.T) {
	record := history.Record{Writes: []*history.Write{
		acknowledged(1, 90, 95), acknowledged(1, 100, 120), unknown(1, 125), acknowledged(2, 100, 150), acknowledged(1, 170, 180),
	}}
	for _, want := range []struct {
		from, to, gap time.Duration
		members       []*rig.Member
	}{
		{100, 200, 60, []*rig.Member{one}},
		{100, 200, 30, []*rig.Member{one, other}},
		{100, 300, 120, []*rig.Member{one}},
		{100, 200, 50, []*rig.Member{other}},
		{200, 300, 100, []*rig.Member{one, other}},
	} {
		if got := gap(record, want.from, want.to, want.members...); got != want.gap {
			t.Errorf("from %d to %d: %d, want %d", want.from, want.to, got, want.gap)
		}
	}
}

func TestWrittenIsByCallAndMember(t *testing.T) {
	record := history.Record{Writes: []*history.Write{acknowledged(1, 99, 120), acknowledged(1, 100, 101), unknown(2, 150), acknowledged(1, 200, 201)}}
	if found := written(record, 100, 200, one, other); len(found) != 2 || unanswered(found) != 1 || len(latencies(found)) != 1 {
		t.Errorf("%d found, %d unanswered", len(found), unanswered(found))
	}
}
