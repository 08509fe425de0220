package harness

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector is one of OpenTelemetry: it keeps all spans that somebody exports to it.
type Collector struct {
	collector.UnimplementedTraceServiceServer
	Address string

	mutex sync.Mutex
	spans []Span
}

// Span is one, with the attributes of the process that it came from.
type Span struct {
	*trace.Span
	Resource string
}

// StartCollector listens on an address, whose port may be 0.
func StartCollector(t testing.TB, address string) *Collector {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &Collector{Address: listener.Addr().String()}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return s
}

// Export is what exporters call.
func (s *Collector) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, one := range scope.Spans {
				s.spans = append(s.spans, Span{one, AttributesOf(resource.Resource.Attributes)})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// Spans gives the spans that have come.
func (s *Collector) Spans() []Span {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return slices.Clone(s.spans)
}

// AttributesOf gives attributes by name, without what differs from start to start.
func AttributesOf(attributes []*common.KeyValue) string {
	var all []string
	for _, one := range attributes {
		var value string
		switch of := one.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			value = fmt.Sprintf("%q", of.StringValue)
		case *common.AnyValue_IntValue:
			value = fmt.Sprint(of.IntValue)
		case *common.AnyValue_BoolValue:
			value = fmt.Sprint(of.BoolValue)
		default:
			value = fmt.Sprintf("%T", of)
		}
		if one.Key == "server.port" {
			value = "some"
		}
		all = append(all, one.Key+"="+value)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
