package kubernetes

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	servertesting "k8s.io/apiextensions-apiserver/pkg/cmd/server/testing"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/cacher/consistency"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"basalt/tests/interop/harness"
)

const (
	// checkPeriod of the cache consistency check; the API server adds up to half of it at random.
	checkPeriod = 5 * time.Second
	// compactionInterval of the API server. It compacts at the revision it saw one interval ago.
	compactionInterval = 10 * time.Second
)

var widgets = schema.GroupVersionResource{Group: "interop.basalt", Version: "v1", Resource: "widgets"}

// unusedKubeconfig names an API server that is never called: authentication and authorization want one to start.
const unusedKubeconfig = `
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.1.2.3:12345"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
users: [{name: none, user: {username: none, password: none}}]
`

// TestMain turns the consistency check into a panic and makes it frequent, before any API server exists.
func TestMain(m *testing.M) {
	consistency.CheckPeriod = checkPeriod
	consistency.PanicOnCacheInconsistency = true
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags)
	if os.Getenv("KUBERNETES_LOG") == "" {
		for name, value := range map[string]string{"logtostderr": "false", "stderrthreshold": "FATAL"} {
			if err := klogFlags.Set(name, value); err != nil {
				panic(err)
			}
		}
		klog.SetOutput(discard{})
	}
	os.Exit(m.Run())
}

type discard struct{}

func (discard) Write(text []byte) (int, error) { return len(text), nil }

// apiServer is one life of the API server.
type apiServer struct {
	stop    func()
	config  *rest.Config
	widgets dynamic.NamespaceableResourceInterface
}

func startAPIServer(t *testing.T, store *harness.Server, prefix string) *apiServer {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(unusedKubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	running, err := servertesting.StartTestServer(t, nil, []string{
		"--etcd-servers=" + store.Endpoint(),
		"--etcd-prefix=" + prefix,
		"--etcd-compaction-interval=" + compactionInterval.String(),
		"--etcd-count-metric-poll-period=2s",
		"--etcd-db-metric-poll-interval=2s",
		"--authentication-skip-lookup",
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--kubeconfig=" + kubeconfig,
		// What would call a whole API server.
		"--enable-priority-and-fairness=false",
		"--disable-admission-plugins=NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook," +
			"ValidatingAdmissionPolicy,MutatingAdmissionPolicy",
	}, nil)
	if err != nil {
		t.Fatalf("start the API server on %s: %v", store.Kind, err)
	}
	config := rest.CopyConfig(running.ClientConfig)
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &apiServer{stop: running.TearDownFn, config: config, widgets: client.Resource(widgets)}
}

// defineWidgets creates the resource type and waits until it is served.
func (a *apiServer) defineWidgets(t *testing.T, ctx context.Context) {
	t.Helper()
	client, err := clientset.NewForConfig(a.config)
	if err != nil {
		t.Fatal(err)
	}
	preserve := true
	definition := &apiextensions.CustomResourceDefinition{
		ObjectMeta: meta.ObjectMeta{Name: widgets.Resource + "." + widgets.Group},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: widgets.Group, Scope: apiextensions.NamespaceScoped,
			Names: apiextensions.CustomResourceDefinitionNames{
				Plural: widgets.Resource, Singular: "widget", Kind: "Widget", ListKind: "WidgetList",
			},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: widgets.Version, Served: true, Storage: true,
				Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &preserve,
				}},
			}},
		},
	}
	if _, err := client.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, definition, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	a.awaitWidgets(t, ctx)
}

// awaitWidgets waits until lists of widgets are answered.
func (a *apiServer) awaitWidgets(t *testing.T, ctx context.Context) {
	t.Helper()
	eventually(t, ctx, "widgets to be served", func() error {
		_, err := a.widgets.List(ctx, meta.ListOptions{Limit: 1})
		return err
	})
}

// eventually asks until there is no error, or fails with the last one when the context ends.
func eventually(t *testing.T, ctx context.Context, what string, try func() error) {
	t.Helper()
	if err := retry(ctx, try); err != nil {
		t.Fatalf("waited for %s: %v", what, err)
	}
}

// retry asks until there is no error or the context ends. It may be used on any goroutine.
func retry(ctx context.Context, try func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
