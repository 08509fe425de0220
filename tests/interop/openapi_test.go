package interop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"basalt/tests/interop/harness"
)

// openAPI is the document that basaltctl prints, valid by OpenAPI's own rules.
func openAPI(t *testing.T) *openapi3.T {
	t.Helper()
	printed := harness.Basaltctl(t, "openapi")
	if printed.Code != 0 {
		t.Fatalf("basaltctl openapi: %d %s", printed.Code, printed.Stderr)
	}
	document := must(openapi3.NewLoader().LoadFromData([]byte(printed.Stdout)))(t)
	if err := document.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return document
}

// TestOpenAPIDescribesTheGateway sends what TestGatewayAnswersAsEtcds sends, and holds each request that is well formed and each
// answer against the document.
func TestOpenAPIDescribesTheGateway(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("etcd's own documents are OpenAPI 2.0")
	}
	document := openAPI(t)
	server := harness.Start(t, harness.Options{Args: []string{"--bcrypt-cost=4"}})
	document.Servers = openapi3.Servers{{URL: server.Endpoint()}}
	closeSchemas(document)
	router := must(gorillamux.NewRouter(document))(t)
	client, described := newClient(nil, false), map[string]bool{}
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	for _, call := range gatewayCalls {
		request := must(http.NewRequest(call.method, server.Endpoint()+call.path, strings.NewReader(call.body)))(t)
		route, parameters, err := router.FindRoute(request)
		response := must(client.Do(must(http.NewRequest(call.method, server.Endpoint()+call.path, strings.NewReader(call.body)))(t)))(t)
		answer := must(io.ReadAll(response.Body))(t)
		response.Body.Close()
		if err != nil {
			// What the document does not have is not served: no method, or no path.
			if call.method != "OPTIONS" && response.StatusCode != http.StatusNotImplemented && response.StatusCode != http.StatusNotFound {
				t.Errorf("%v: %d, and the document has no %v", call, response.StatusCode, err)
			}
			continue
		}
		input := &openapi3filter.RequestValidationInput{Request: request, PathParams: parameters, Route: route, Options: options}
		if isCanonical(call) {
			request.Header.Set("Content-Type", "application/json")
			if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
				t.Errorf("%v: %v", call, err)
			}
		}
		described[route.Path] = true
		// A stream's answer is a line for each message.
		for line := range bytes.Lines(answer) {
			validated := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: response.StatusCode, Header: response.Header, Options: options}
			if err := openapi3filter.ValidateResponse(context.Background(), validated.SetBodyBytes(line)); err != nil {
				t.Errorf("%v: %v\n%s", call, err, line)
			}
		}
	}
	if len(described) < 40 {
		t.Errorf("only %d paths were tried: %v", len(described), slices.Sorted(maps.Keys(described)))
	}
}

// closeSchemas lets no answer have a field that the document does not name.
func closeSchemas(document *openapi3.T) {
	none := false
	for _, schema := range document.Components.Schemas {
		if schema.Value.Type.Is("object") {
			schema.Value.AdditionalProperties = openapi3.AdditionalProperties{Has: &none}
		}
	}
}

// isCanonical says whether a request is written as the document asks: with numbers of 64 bits as strings and enumerations by name.
// Others are taken too, as protobuf's JSON has it.
func isCanonical(call jsonCall) bool {
	return call.path == "/v3/kv/put" || call.path == "/v3/kv/deleterange" || strings.HasPrefix(call.path, "/v3/auth/")
}

// TestOpenAPIHasWhatEtcdsHas compares paths, operations, schemas and their fields with what etcd's own descriptors say, of which
// etcd's published documents are made, and with those documents themselves where ETCD_SWAGGER is their folder
// (Documentation/dev-guide/apispec/swagger of etcd's repository): they are in none of its Go modules.
func TestOpenAPIHasWhatEtcdsHas(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("etcd's documents would be compared with themselves")
	}
	names := namesOfDescriptors()
	if folder := os.Getenv("ETCD_SWAGGER"); folder != "" {
		compareNames(t, namesOfSwagger(t, folder))
	}
	if len(names.Operations) != 51 {
		t.Errorf("etcd has %d paths", len(names.Operations))
	}
	compareNames(t, names)
}

func compareNames(t *testing.T, names etcdNames) {
	t.Helper()
	document := openAPI(t)
	for path, operation := range names.Operations {
		item := document.Paths.Value(path)
		if item == nil || item.Post == nil || item.Post.OperationID != operation {
			t.Errorf("%s: no operation %s", path, operation)
		}
	}
	for path, item := range document.Paths.Map() {
		if names.Operations[path] == "" && !item.Post.Deprecated {
			t.Errorf("%s is not etcd's", path)
		}
	}
	for name, fields := range names.Schemas {
		schema := document.Components.Schemas[name]
		if schema == nil {
			t.Errorf("no schema %s", name)
			continue
		}
		have := map[string]string{}
		for field, of := range schema.Value.Properties {
			have[field] = typeOf(of.Value)
		}
		for n, value := range schema.Value.Enum {
			have[value.(string)] = fmt.Sprint(n)
		}
		if !maps.Equal(have, fields) {
			t.Errorf("%s: %v, etcd has %v", name, have, fields)
		}
	}
	for name := range document.Components.Schemas {
		if names.Schemas[name] == nil {
			t.Errorf("the schema %s is not etcd's", name)
		}
	}
}

// etcdNames is what a client that was generated of etcd's documents is built of.
type etcdNames struct {
	// Operations by path.
	Operations map[string]string
	// Schemas: type and format by field, or order by value.
	Schemas map[string]map[string]string
}

// notSent are parts of etcd's documents that neither server ever sends: details of errors.
// rpcStatus is what the smaller two of them call googleRpcStatus.
var notSent = map[string]bool{"protobufAny": true, "googleRpcStatus.details": true, "rpcStatus": true}

func namesOfDescriptors() etcdNames {
	names := etcdNames{Operations: map[string]string{}, Schemas: map[string]map[string]string{
		// An error, which is in no file of etcd's.
		"googleRpcStatus": {"code": "integer int32", "message": "string"},
	}}
	for _, file := range []protoreflect.FileDescriptor{pb.File_rpc_proto, lpb.File_v3lock_proto, epb.File_v3election_proto} {
		services := file.Services()
		for n := range services.Len() {
			methods := services.Get(n).Methods()
			for m := range methods.Len() {
				method := methods.Get(m)
				rule, _ := proto.GetExtension(method.Options(), annotations.E_Http).(*annotations.HttpRule)
				if rule == nil {
					continue
				}
				operation := string(services.Get(n).Name()) + "_" + string(method.Name())
				names.Operations[rule.GetPost()] = operation
				for more, other := range rule.AdditionalBindings {
					names.Operations[other.GetPost()] = fmt.Sprint(operation, more+2)
				}
				names.add(method.Input())
				names.add(method.Output())
			}
		}
	}
	return names
}

// add takes a message and all that its fields lead to.
func (n etcdNames) add(message protoreflect.MessageDescriptor) {
	name := schemaName(message)
	if n.Schemas[name] != nil {
		return
	}
	n.Schemas[name] = map[string]string{}
	fields := message.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		kind := map[protoreflect.Kind]string{
			protoreflect.BoolKind: "boolean", protoreflect.StringKind: "string", protoreflect.BytesKind: "string byte",
			protoreflect.Int32Kind: "integer int32", protoreflect.Uint32Kind: "integer int64",
			protoreflect.Int64Kind: "string int64", protoreflect.Uint64Kind: "string uint64",
		}[field.Kind()]
		switch field.Kind() {
		case protoreflect.MessageKind:
			n.add(field.Message())
		case protoreflect.EnumKind:
			values, have := field.Enum().Values(), map[string]string{}
			for v := range values.Len() {
				have[string(values.Get(v).Name())] = fmt.Sprint(v)
			}
			n.Schemas[schemaName(field.Enum())] = have
		}
		if field.IsList() {
			kind = "array"
		}
		n.Schemas[name][string(field.Name())] = kind
	}
}

// schemaName is the last two parts of a full name, but for one name.
func schemaName(descriptor protoreflect.Descriptor) string {
	if descriptor.FullName() == "authpb.Permission.Type" {
		return "authpbPermissionType"
	}
	parts := strings.Split(string(descriptor.FullName()), ".")
	return strings.Join(parts[max(0, len(parts)-2):], "")
}

func namesOfSwagger(t *testing.T, folder string) etcdNames {
	t.Helper()
	type schema struct {
		Type, Format string
		Ref          string `json:"$ref"`
		Enum         []string
		Properties   map[string]struct {
			Type, Format string
			Ref          string `json:"$ref"`
		}
	}
	type swagger struct {
		Paths       map[string]map[string]struct{ OperationID string }
		Definitions map[string]schema
	}
	names := etcdNames{Operations: map[string]string{}, Schemas: map[string]map[string]string{}}
	for _, file := range []string{"rpc", "v3lock", "v3election"} {
		document := decode[swagger](t, string(must(os.ReadFile(filepath.Join(folder, file+".swagger.json")))(t)))
		for path, methods := range document.Paths {
			if len(methods) != 1 {
				t.Errorf("%s has %d methods", path, len(methods))
			}
			names.Operations[path] = methods["post"].OperationID
		}
		for name, definition := range document.Definitions {
			if notSent[name] {
				continue
			}
			fields := map[string]string{}
			for field, of := range definition.Properties {
				if !notSent[name+"."+field] {
					fields[field] = strings.Trim(of.Type+" "+of.Format, " ")
				}
			}
			for n, value := range definition.Enum {
				fields[value] = fmt.Sprint(n)
			}
			names.Schemas[name] = fields
		}
	}
	return names
}

// typeOf names a type as etcd's documents do; a reference has none.
func typeOf(schema *openapi3.Schema) string {
	if schema.AllOf != nil || schema.Properties != nil || schema.Enum != nil {
		return ""
	}
	return strings.Trim(strings.Join(schema.Type.Slice(), "")+" "+schema.Format, " ")
}
