package programs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"basalt/tests/interop/harness"
)

// confd is the program: the one that CONFD_BIN names, or else the one that `build.sh confd` built.
func confd(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("CONFD_BIN"); path != "" {
		return path
	}
	if !asked("confd") {
		t.Skip("confd is asked for by PROGRAMS=confd, or by CONFD_BIN")
	}
	return harness.ToolPath(t, "confd")
}

// rendering is a template of confd's and where its result goes.
type rendering struct{ dir, result string }

func newRendering(t *testing.T) rendering {
	t.Helper()
	r := rendering{dir: t.TempDir()}
	r.result = filepath.Join(r.dir, "result")
	for path, content := range map[string]string{
		"conf.d/app.toml": "[template]\nsrc = \"app.tmpl\"\ndest = \"" + r.result + "\"\nkeys = [\"/r/app\", \"/r/hosts\"]\n",
		"templates/app.tmpl": "name={{getv \"/r/app/name\"}} debug={{getv \"/r/app/debug\" \"off\"}}" +
			"{{range gets \"/r/hosts/*\"}} {{base .Key}}={{.Value}}{{end}}\n",
	} {
		path = filepath.Join(r.dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r rendering) args(server *harness.Server, more ...string) []string {
	return append([]string{"--backend=etcd", "--confdir=" + r.dir, "--config-file=" + filepath.Join(r.dir, "none.toml"), "--node=" + server.Endpoint()}, more...)
}

func (r rendering) expect(t *testing.T, want string) {
	t.Helper()
	await(t, "confd has rendered "+want, func() bool {
		content, err := os.ReadFile(r.result)
		return err == nil && strings.TrimSpace(string(content)) == want
	})
}

// TestConfd: a file rendered once, and again at every change, over a restart of the server too; in the open, by name and
// password, and over TLS with a certificate.
func TestConfd(t *testing.T) {
	program := confd(t)
	certificates := harness.NewCertificates(t)
	for name, test := range map[string]struct {
		options harness.Options
		guarded bool
		flags   []string
	}{
		"open":    {},
		"guarded": {options: harness.Options{Args: []string{"--bcrypt-cost=4"}}, guarded: true, flags: []string{"--basic-auth", "--username=ann", "--password=word"}},
		"TLS": {options: harness.Options{TLS: certificates}, flags: []string{
			"--scheme=https", "--client-ca-keys=" + certificates.Authority, "--client-cert=" + certificates.ClientCert, "--client-key=" + certificates.ClientKey,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server := harness.Start(t, test.options)
			put(t, server, "/r/app/name", "one", "/r/hosts/a", "1", "/r/hosts/b", "2", "/private", "x")
			var user []string
			if test.guarded {
				guard(t, server)
				user = append(user, "--user=root:secret")
			}
			once := newRendering(t)
			runProgram(t, waitMax, program, once.args(server, append(test.flags, "--onetime")...)...)
			once.expect(t, "name=one debug=off a=1 b=2")

			watching := newRendering(t)
			command := exec.Command(program, watching.args(server, append(test.flags, "--watch", "--log-level=debug")...)...)
			var log bytes.Buffer
			command.Stdout, command.Stderr = &log, &log
			command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = command.Process.Kill()
				_ = command.Wait()
				if t.Failed() {
					t.Logf("confd: %s", &log)
				}
			})
			write := func(args ...string) { server.Etcdctl(append(user, args...)...) }
			watching.expect(t, "name=one debug=off a=1 b=2")
			write("put", "/r/app/debug", "on")
			watching.expect(t, "name=one debug=on a=1 b=2")
			write("del", "/r/hosts/a")
			watching.expect(t, "name=one debug=on b=2")
			server.Kill()
			server.Restart()
			write("put", "/r/hosts/c", "3")
			watching.expect(t, "name=one debug=on b=2 c=3")
		})
	}
}
