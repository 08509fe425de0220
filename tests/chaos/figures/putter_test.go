package figures

import (
	"testing"
	"time"
)

func TestPercentileIsByTheNearestRank(t *testing.T) {
	var hundred []time.Duration
	for n := 100; n > 0; n-- {
		hundred = append(hundred, time.Duration(n))
	}
	for percent, want := range map[int]time.Duration{50: 50, 99: 99, 100: 100, 1: 1} {
		if got := Percentile(hundred, percent); got != want {
			t.Errorf("p%d is %d, want %d", percent, got, want)
		}
	}
	if Percentile(nil, 99) != 0 || Percentile([]time.Duration{7}, 50) != 7 {
		t.Error("of none and of one")
	}
}
