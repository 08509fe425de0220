package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"basalt/tests/interop/harness"
)

// badStart is a command line that must not serve. Its exit code is etcd's; the words are basalt's own.
type badStart struct {
	name string
	args []string
	env  []string
	code int
	// says are parts of the last line: the cause and what to do next.
	says []string
	// own marks what genuine etcd does otherwise.
	own bool
}

// TestBadCommandLine ends each start with one line and without a data directory (etcd-contract section 4).
func TestBadCommandLine(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	made := harness.NewCertificates(t)
	for _, start := range []badStart{
		{name: "clients are verified by nobody", code: 1, own: true,
			args: []string{"--cert-file=" + made.ServerCert, "--key-file=" + made.ServerKey, "--client-cert-auth"},
			says: []string{"--client-cert-auth needs certificates to trust", "set --trusted-ca-file"}},
		{name: "members are verified by nobody", code: 1, own: true,
			args: []string{"--peer-cert-file=" + made.ServerCert, "--peer-key-file=" + made.ServerKey, "--peer-client-cert-auth"},
			says: []string{"--peer-client-cert-auth needs certificates to trust", "set --peer-trusted-ca-file"}},
		{name: "value that is no number", args: []string{"--heartbeat-interval=soon"}, code: 2,
			says: []string{`invalid value "soon" for flag -heartbeat-interval`, "basalt --help"}},
		{name: "value that is no bool", args: []string{"--pre-vote=maybe"}, code: 2,
			says: []string{`"maybe"`, "-pre-vote", "basalt --help"}},
		{name: "value that is no URL", args: []string{"--listen-client-urls=localhost:1"}, code: 2,
			says: []string{`"localhost:1"`, "-listen-client-urls", "basalt --help"}},
		{name: "flag without its value", args: []string{"--name"}, code: 2,
			says: []string{"flag needs an argument: -name", "write --name=<value>"}},
		{name: "unknown flag", args: []string{"--no-such-flag"}, code: 2,
			says: []string{"flag provided but not defined: -no-such-flag", "basalt --help"}},
		{name: "unknown feature gate", args: []string{"--feature-gates=NoSuchGate=true"}, code: 2,
			says: []string{"NoSuchGate", "basalt --help"}},
		{name: "a subcommand", args: []string{"server"}, code: 1,
			says: []string{`"server" is not a valid flag`, "start it with flags only", "basalt --help"}},
		{name: "gateway", args: []string{"gateway", "start"}, code: 1, own: true,
			says: []string{`"gateway" is not part of basalt`, "run the genuine etcd program for it"}},
		{name: "grpc-proxy", args: []string{"grpc-proxy", "start"}, code: 1, own: true,
			says: []string{`"grpc-proxy" is not part of basalt`, "run the genuine etcd program for it"}},
		{name: "no advertised URL", args: []string{"--listen-client-urls=http://127.0.0.1:1"}, code: 1,
			says: []string{"--advertise-client-urls is required", "set it to the URLs under which clients reach this member"}},
		{name: "flag and variable", args: []string{"--name=a"}, env: []string{"ETCD_NAME=b"}, code: 1,
			says: []string{"ETCD_NAME", "--name"}},
		{name: "what is refused", args: []string{"--unsafe-no-fsync"}, code: 1, own: true,
			says: []string{"--unsafe-no-fsync", "is refused"}},
		{name: "no config file", args: []string{"--config-file=" + filepath.Join(dir, "none.yaml")}, code: 1,
			says: []string{"cannot read config file", "none.yaml", "check the path and its permissions"}},
		{name: "a config file that is no YAML", args: []string{"--config-file=" + write("bad.yaml", "name: [")}, code: 1,
			says: []string{"is not YAML", "correct ", "bad.yaml"}},
		{name: "a config file with a wrong value", args: []string{"--config-file=" + write("wrong.yaml", "max-txn-ops: many")}, code: 1,
			says: []string{"max-txn-ops", "correct ", "wrong.yaml"}},
	} {
		t.Run(start.name, func(t *testing.T) {
			if start.own && harness.UnderTest(t) != harness.Basalt {
				t.Skip("genuine etcd does otherwise here")
			}
			workDir := t.TempDir()
			end := harness.RunToEnd(t, harness.Launch{Args: start.args, Env: start.env, WorkDir: workDir})
			expectRefused(t, end, start.code, start.says...)
			if left, err := os.ReadDir(workDir); err != nil || len(left) != 0 {
				t.Errorf("the refused start has left %v, %v", left, err)
			}
		})
	}
}

// expectRefused checks the exit code, and that basalt's last words are one line that says what it should: before it
// there are lines of the log only.
func expectRefused(t *testing.T, end harness.Result, code int, says ...string) {
	t.Helper()
	if end.Code != code {
		t.Errorf("exit %d, want %d:\n%s%s", end.Code, code, end.Stdout, end.Stderr)
	}
	if harness.UnderTest(t) != harness.Basalt {
		return
	}
	lines := strings.Split(strings.TrimSuffix(end.Stderr, "\n"), "\n")
	last := lines[len(lines)-1]
	for _, part := range says {
		if !strings.Contains(last, part) {
			t.Errorf("the last line does not say %q: %s", part, last)
		}
	}
	for _, line := range lines[:len(lines)-1] {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("a line that is neither of the log nor the last one: %q", line)
		}
	}
	if last == "" || strings.HasPrefix(last, "{") || end.Stdout != "" {
		t.Errorf("no plain last line on standard error, standard output %q:\n%s", end.Stdout, end.Stderr)
	}
	if cause := last[strings.LastIndex(last, ": ")+1:]; strings.Count(last, cause) > 1 {
		t.Errorf("the last line says its cause twice: %s", last)
	}
	t.Logf("exit %d: %s", end.Code, last)
}

// TestTakenPort starts a second server on the client port of the first, which goes on.
func TestTakenPort(t *testing.T) {
	server := harness.StartUnderTest(t)
	server.Etcdctl("put", "a", "1")
	dir := filepath.Join(t.TempDir(), "second")
	end := harness.RunToEnd(t, harness.Launch{Args: []string{
		"--data-dir=" + dir, "--listen-client-urls=" + server.Endpoint(), "--advertise-client-urls=" + server.Endpoint(),
		"--listen-peer-urls=http://127.0.0.1:0",
	}})
	expectRefused(t, end, 1, "cannot listen on "+server.Endpoint(), "already in use",
		"stop the process that has it or choose another port")
	if _, err := os.Stat(dir); server.Kind == harness.Basalt && !os.IsNotExist(err) {
		t.Errorf("the refused start has left %s: %v", dir, err)
	}
	expectText(t, "get", server.Etcdctl("get", "a"), "a", "1")
}

// TestUnknownConfigKeys: as in etcd they stop nothing, but basalt names each (etcd-contract section 4).
func TestUnknownConfigKeys(t *testing.T) {
	server := harness.Start(t, harness.Options{Config: "no-such-key: 1\n" +
		"client-transport-security:\n  no-such-inner-key: true\n"})
	server.Etcdctl("put", "a", "1")
	expectText(t, "get", server.Etcdctl("get", "a"), "a", "1")
	if server.Kind != harness.Basalt {
		return
	}
	for _, key := range []string{"no-such-key", "client-transport-security.no-such-inner-key"} {
		if !server.LogContains(`unknown config file key \"` + key + `\" is ignored`) {
			t.Errorf("the log does not name %s", key)
		}
	}
}

// TestUnusableCertificates: every file that TLS needs, missing, full of something else, or of another pair.
func TestUnusableCertificates(t *testing.T) {
	good, other := harness.NewCertificates(t), harness.NewCertificates(t)
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("this is no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(dir, "damaged.pem")
	content, err := os.ReadFile(good.ServerCert)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(content), "\n")
	if err := os.WriteFile(damaged, []byte(strings.Join(append(lines[:2], lines[3:]...), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.pem")
	for _, files := range []struct {
		name, cert, key, authority string
		says                       []string
	}{
		{"no certificate", missing, good.ServerKey, good.Authority, []string{"cannot read", missing, "check the path and its permissions"}},
		{"no key", good.ServerCert, missing, good.Authority, []string{"cannot read", missing, "check the path and its permissions"}},
		{"no authority", good.ServerCert, good.ServerKey, missing, []string{"cannot read", missing, "check the path and its permissions"}},
		{"certificate of nothing", garbage, good.ServerKey, good.Authority, []string{garbage, "no certificate in PEM form", "replace the file"}},
		{"damaged certificate", damaged, good.ServerKey, good.Authority, []string{damaged, "damaged certificate", "replace the file"}},
		{"key of nothing", good.ServerCert, garbage, good.Authority, []string{garbage, "no private key in PEM form", "replace the file"}},
		{"authority of nothing", good.ServerCert, good.ServerKey, garbage, []string{garbage, "no certificate in PEM form", "replace the file"}},
		{"key of another certificate", good.ServerCert, other.ServerKey, good.Authority,
			[]string{good.ServerCert, "check that certificate and key belong together"}},
	} {
		t.Run(files.name, func(t *testing.T) {
			if files.authority == garbage && harness.UnderTest(t) != harness.Basalt {
				t.Skip("genuine etcd starts, and trusts nobody")
			}
			dataDir := filepath.Join(t.TempDir(), "data")
			end := harness.RunToEnd(t, harness.Launch{Args: []string{
				"--data-dir=" + dataDir, "--listen-client-urls=https://127.0.0.1:0", "--advertise-client-urls=https://127.0.0.1:0",
				"--listen-peer-urls=http://127.0.0.1:0", "--cert-file=" + files.cert, "--key-file=" + files.key,
				"--trusted-ca-file=" + files.authority, "--client-cert-auth",
			}})
			expectRefused(t, end, 1, files.says...)
		})
	}
}
