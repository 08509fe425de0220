package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-jsonnet"
)

// The alerts and dashboards of etcd's project, at the newest version that is to be had as a module; its sum is fixed
// here, since no package of ours imports it.
const (
	mixinModule = "go.etcd.io/etcd/v3@v3.7.0"
	mixinSum    = "h1:xrJPcFrLA/q1KYHsVBgj7PWF7YaEm3U+76f24OVCnJQ="
)

// expression is one that somebody's alert or panel evaluates.
type expression struct{ Name, Expr string }

// mixinProgram gives all expressions of the mixin for one cluster, in both forms of its dashboard.
const mixinProgram = `
local config = { _config+:: { etcd_selector: 'job="%[1]s"', scrape_interval_seconds: 1 } };
local base = (import 'config.libsonnet') + config;
local alerts = (base + (import 'alerts/alerts.libsonnet')).prometheusAlerts;
local old = base + { _config+:: { grafana7x: true } } + (import 'dashboards/etcd-grafana7x.libsonnet');
local targets = (import 'dashboards/targets.libsonnet')({ datasource: { name: 'd' } }, base._config);
[{ Name: 'alert ' + rule.alert, Expr: rule.expr } for group in alerts.groups for rule in group.rules] +
[
  { Name: 'panel ' + panel.title, Expr: target.expr }
  for row in old.grafanaDashboards['etcd.json'].rows
  for panel in row.panels
  for target in panel.targets
] +
[{ Name: 'target ' + name, Expr: targets[name].expr } for name in std.objectFields(targets)]
`

// panelLibrary is as much of Grafana's library as the expressions need.
const panelLibrary = `{ query: { prometheus: { new(source, expr):: { expr: expr }, withLegendFormat(format):: {} } } }`

// mixinImporter reads the mixin's files, and the library of panels from above.
type mixinImporter struct {
	files   jsonnet.FileImporter
	library jsonnet.Contents
}

func (i *mixinImporter) Import(from, path string) (jsonnet.Contents, string, error) {
	if filepath.Base(path) == "g.libsonnet" {
		return i.library, "g.libsonnet", nil
	}
	return i.files.Import(from, path)
}

// mixinOf gives what the mixin would evaluate of the cluster that is scraped as `job`.
func mixinOf(t *testing.T, job string) []expression {
	t.Helper()
	vm := jsonnet.MakeVM()
	vm.Importer(&mixinImporter{
		files:   jsonnet.FileImporter{JPaths: []string{filepath.Join(mixinDir(t), "contrib", "mixin")}},
		library: jsonnet.MakeContents(panelLibrary),
	})
	text, err := vm.EvaluateAnonymousSnippet("expressions.jsonnet", fmt.Sprintf(mixinProgram, job))
	if err != nil {
		t.Fatal(err)
	}
	var all []expression
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	filled := strings.NewReplacer("$cluster", job, "$__rate_interval", rateInterval)
	for n := range all {
		all[n].Expr = filled.Replace(all[n].Expr)
	}
	return all
}

// mixinDir is where Go keeps the module.
func mixinDir(t *testing.T) string {
	t.Helper()
	command := exec.Command("go", "mod", "download", "-json", mixinModule)
	// Outside of the module, whose go.sum it would change.
	command.Dir, command.Stderr = t.TempDir(), os.Stderr
	output, err := command.Output()
	var module struct{ Dir, Sum, Error string }
	if parse := json.Unmarshal(output, &module); parse != nil || err != nil || module.Error != "" {
		t.Fatalf("no %s: %v %s", mixinModule, err, module.Error)
	}
	if module.Sum != mixinSum {
		t.Fatalf("%s is %s, not %s", mixinModule, module.Sum, mixinSum)
	}
	return module.Dir
}

// comparison is one that filters; written as a number it shows whether there is anything to compare.
var comparison = regexp.MustCompile(`(==|>=|<=|>|<)(\s+bool)?\s`)

// operandsOf makes an alert's expression one that has a value also where there is nothing to alert about.
func operandsOf(expr string) string { return comparison.ReplaceAllString(expr+" ", "$1 bool ") }
