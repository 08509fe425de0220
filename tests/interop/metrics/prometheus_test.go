package metrics

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// rateInterval is what dashboards take rates over here: longer than the test, so that what is rare counts.
const rateInterval = "2m"

// prometheus is a server that scrapes every second.
type prometheus struct {
	t    *testing.T
	base string
}

// tool finds one of the programs of Debian's package `prometheus`.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("no %s: install Prometheus (Debian: apt-get install prometheus)", name)
	}
	return path
}

// startPrometheus scrapes the members of each job, and evaluates the rules of a file, if one is given.
func startPrometheus(t *testing.T, jobs map[string]harness.Members, rules string) *prometheus {
	t.Helper()
	var config strings.Builder
	config.WriteString("global: {scrape_interval: 1s, evaluation_interval: 1s}\n")
	if rules != "" {
		fmt.Fprintf(&config, "rule_files: [%q]\n", rules)
	}
	config.WriteString("scrape_configs:\n")
	for job, members := range jobs {
		fmt.Fprintf(&config, "- {job_name: %s, static_configs: [{targets: [%s]}]}\n", job, members.Endpoints())
	}
	dir, port := t.TempDir(), harness.FreePort(t)
	path := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(path, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	command := exec.Command(tool(t, "prometheus"), "--config.file="+path, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=warn")
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = output, output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if text, err := os.ReadFile(output.Name()); err == nil && t.Failed() {
			t.Logf("prometheus said: %s", text)
		}
	})
	return &prometheus{t, "http://" + address}
}

// sample is one result of a query.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

// query evaluates an expression now; what has no number counts as nothing.
func (p *prometheus) query(expr string) ([]sample, error) {
	response, err := http.Get(p.base + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	if answer.Status != "success" {
		return nil, errors.New(answer.Error)
	}
	return slices.DeleteFunc(answer.Data.Result, func(one sample) bool { return one.Value[1] == "NaN" }), nil
}

// await waits until an expression gives so many samples.
func (p *prometheus) await(expr string, samples int) {
	p.t.Helper()
	var last string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		found, err := p.query(expr)
		if err == nil && len(found) >= samples {
			return
		}
		last = fmt.Sprint(found, err)
	}
	p.t.Fatalf("%s gives %s", expr, last)
}

// busy does all kinds of work on a cluster until told to stop, and returns when it has.
func busy(t *testing.T, members harness.Members, stop <-chan struct{}) (done chan struct{}) {
	t.Helper()
	workers, _ := byRole(t, members)
	for _, w := range workers {
		w.watchForever()
	}
	workers[0].call("Lease/LeaseGrant", leaseOf(7), nil)
	workers[0].keepAlive(7)
	done = make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			for _, w := range workers {
				// Not with the helpers of steps: they end a test from its own goroutine only.
				w.try("KV/Put", putOf(fmt.Sprint("/registry/", n%100), "value"))
				w.try("KV/Range", rangeOf("/registry/", "/registry0"))
				w.try("Cluster/MemberPromote", promotionOf(12345))
				w.try("Lease/LeaseGrant", leaseOf(0))
			}
		}
	}()
	return done
}

// TestMixinSeesBasaltAsEtcd has the alerts and panels of etcd's project evaluated for a cluster of each kind, under the
// same load: none that etcd fills is empty here.
func TestMixinSeesBasaltAsEtcd(t *testing.T) {
	kinds := map[string]harness.Kind{"etcd": harness.Etcd, "ours": harness.UnderTest(t)}
	jobs, stop := map[string]harness.Members{}, make(chan struct{})
	var ends []chan struct{}
	for job, kind := range kinds {
		jobs[job] = harness.StartMembers(t, kind, 3, "--metrics=extensive")
		ends = append(ends, busy(t, jobs[job], stop))
	}
	defer func() {
		close(stop)
		for _, end := range ends {
			<-end
		}
	}()
	rules, err := filepath.Abs("../../../deploy/prometheus/basalt.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	server := startPrometheus(t, jobs, rules)
	server.await(`count_over_time(up[5m]) >= 20`, 6)
	// A checkpoint may be some seconds away.
	for job := range kinds {
		server.await(fmt.Sprintf(`rate(etcd_disk_backend_commit_duration_seconds_count{job="%s"}[2m]) > 0`, job), 3)
		// etcd asks the others for the time every 30 s.
		server.await(fmt.Sprintf(`rate(etcd_network_peer_round_trip_time_seconds_count{job="%s"}[2m]) > 0`, job), 6)
	}

	etcd, ours := mixinOf(t, "etcd"), mixinOf(t, "ours")
	filled := 0
	for n, of := range etcd {
		theirs, err := server.query(operandsOf(of.Expr))
		if err != nil {
			t.Fatalf("%s: %v", of.Name, err)
		}
		here, err := server.query(operandsOf(ours[n].Expr))
		if err != nil {
			t.Fatalf("%s: %v", of.Name, err)
		}
		if len(theirs) > 0 {
			filled++
		}
		if len(theirs) > 0 && len(here) == 0 {
			t.Errorf("%s is empty: %s", of.Name, ours[n].Expr)
		}
		// What is told apart by member, method or bucket is told apart here too.
		if grouped := len(theirs); grouped > 0 && grouped != len(here) && !strings.Contains(of.Expr, "handled_total") && !strings.Contains(of.Expr, "handling_seconds") {
			t.Errorf("%s shows %d series, and %d for etcd: %s", of.Name, len(here), grouped, ours[n].Expr)
		}
	}
	// All but the alert that wants a quarter of an hour, and the dead targets of an hour.
	if filled < len(etcd)*9/10 {
		t.Errorf("etcd fills only %d of %d expressions: the load is too small to tell", filled, len(etcd))
	}
	if harness.UnderTest(t) == harness.Basalt {
		ownPanels(t, server, "ours")
	}
	if t.Failed() {
		return
	}
	firing, err := server.query(`ALERTS{alertstate="firing", job="ours"}`)
	if err != nil || len(firing) > 0 {
		t.Errorf("alerts of a healthy cluster: %v %v", firing, err)
	}
}

// ownPanels has the dashboard that comes with basalt evaluated: a load as this one fills all of it.
func ownPanels(t *testing.T, server *prometheus, job string) {
	t.Helper()
	text, err := os.ReadFile("../../../deploy/grafana/basalt.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) == 0 {
		t.Error("a dashboard without panels")
	}
	filled := strings.NewReplacer("$cluster", job, "$__rate_interval", rateInterval)
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			found, err := server.query(filled.Replace(target.Expr))
			if err != nil || len(found) == 0 {
				t.Errorf("%s: %s is empty (%v)", panel.Title, target.Expr, err)
			}
		}
	}
}

// TestOwnRules has Prometheus' own tool try the rules that come with basalt; that they load beside a running cluster, and
// are quiet, TestMixinSeesBasaltAsEtcd shows.
func TestOwnRules(t *testing.T) {
	command := exec.Command(tool(t, "promtool"), "test", "rules", "basalt.rules.test.yaml")
	command.Dir = "../../../deploy/prometheus"
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, output)
	}
}
