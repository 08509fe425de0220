package metrics

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"basalt/tests/interop/harness"
)

// family is one of a page: its kind, and its series by their labels.
type family struct {
	kind   string
	series map[string]series
}

// series is what one shows: its value or, of a histogram, how often and how much was observed, and the bounds of its
// buckets.
type series struct {
	value   float64
	sum     float64
	buckets string
}

// page is one scrape.
type page map[string]family

// scrape reads the page of a server. Ids of members stand in labels as `names` says.
func scrape(t *testing.T, server *harness.Server, names map[string]string) page {
	t.Helper()
	request, err := http.NewRequestWithContext(harness.Context(t, 20*time.Second), http.MethodGet, server.Endpoint()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("the page of %s is not Prometheus' text form: %v", server.Kind, err)
	}
	result := page{}
	for name, of := range parsed {
		found := family{kind: strings.ToLower(of.GetType().String()), series: map[string]series{}}
		for _, metric := range of.GetMetric() {
			found.series[labelsOf(metric, names)] = seriesOf(metric)
		}
		result[name] = found
	}
	return result
}

func labelsOf(metric *dto.Metric, names map[string]string) string {
	var labels []string
	for _, pair := range metric.GetLabel() {
		value := pair.GetValue()
		if name, ok := names[value]; ok {
			value = name
		}
		if pair.GetName() == "server_go_version" {
			value = "some"
		}
		labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), value))
	}
	slices.Sort(labels)
	return strings.Join(labels, ",")
}

func seriesOf(metric *dto.Metric) series {
	switch {
	case metric.Histogram != nil:
		var bounds []string
		for _, bucket := range metric.Histogram.Bucket {
			bounds = append(bounds, fmt.Sprint(bucket.GetUpperBound()))
		}
		return series{value: float64(metric.Histogram.GetSampleCount()), sum: metric.Histogram.GetSampleSum(), buckets: strings.Join(bounds, " ")}
	case metric.Counter != nil:
		return series{value: metric.Counter.GetValue()}
	case metric.Gauge != nil:
		return series{value: metric.Gauge.GetValue()}
	case metric.Summary != nil:
		return series{value: float64(metric.Summary.GetSampleCount()), sum: metric.Summary.GetSampleSum()}
	default:
		return series{value: metric.Untyped.GetValue()}
	}
}

// labelNames are those of a family's series, of all of them.
func (f family) labelNames() string {
	all := map[string]bool{}
	for labels := range f.series {
		for _, pair := range strings.Split(labels, ",") {
			name, _, _ := strings.Cut(pair, "=")
			all[name] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(all)), ",")
}

// moved gives the series of a family that differ from what they were, with the difference.
func (p page) moved(before page, name string) map[string]float64 {
	moved := map[string]float64{}
	for labels, now := range p[name].series {
		if was := before[name].series[labels]; now.value != was.value {
			moved[labels] = now.value - was.value
		}
	}
	return moved
}
