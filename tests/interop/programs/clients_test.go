package programs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// installMax bounds what a package manager may take, whose registry can be slow.
const installMax = 10 * time.Minute

// sourceDir is where this package stands.
func sourceDir(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// runProgram runs a program of another language, which must succeed.
func runProgram(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, &stdout, &stderr)
	}
	return stdout.String()
}

// installed makes a directory below bin/ once for each content of the files that say what is in it.
func installed(t *testing.T, name string, inputs []string, install func(dir string)) string {
	t.Helper()
	sum := sha256.New()
	for _, input := range inputs {
		content, err := os.ReadFile(filepath.Join(sourceDir(t), input))
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(content)
	}
	dir := filepath.Join(filepath.Dir(harness.ToolPath(t, "etcd")), name)
	mark, want := filepath.Join(dir, "made-of"), hex.EncodeToString(sum.Sum(nil))
	if have, err := os.ReadFile(mark); err == nil && string(have) == want {
		return dir
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	install(dir)
	if err := os.WriteFile(mark, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// expectSameTranscript runs a program on genuine etcd and on the server under test. It prints the same about both.
func expectSameTranscript(t *testing.T, linesMin int, run func(*harness.Server) string) {
	t.Helper()
	want := run(harness.Start(t, harness.Options{Kind: harness.Etcd, Args: []string{"--bcrypt-cost=4"}}))
	got := run(harness.StartUnderTest(t, "--bcrypt-cost=4"))
	if strings.Count(want, "\n") < linesMin {
		t.Fatalf("a transcript of less than %d lines:\n%s", linesMin, want)
	}
	if want != got {
		t.Errorf("genuine etcd:\n%s\n%s:\n%s", want, harness.UnderTest(t), got)
	}
}

// python is an interpreter with the clients of python/requirements.txt.
func python(t *testing.T) string {
	t.Helper()
	if !asked("python") {
		t.Skip("Python's clients are asked for by PROGRAMS=python")
	}
	dir := installed(t, "python", []string{"python/requirements.txt"}, func(dir string) {
		runProgram(t, installMax, "python3", "-m", "venv", dir)
		runProgram(t, installMax, filepath.Join(dir, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check",
			"--only-binary=:all:", "--require-hashes", "--requirement="+filepath.Join(sourceDir(t), "python", "requirements.txt"))
	})
	return filepath.Join(dir, "bin", "python")
}

// address gives host and port apart, as clients of other languages take them.
func address(server *harness.Server) (host, port string) {
	host, port, _ = strings.Cut(server.Target(), ":")
	return host, port
}

func TestPythonOverGRPC(t *testing.T) {
	interpreter := python(t)
	script := filepath.Join(sourceDir(t), "python", "over_grpc.py")
	t.Run("open", func(t *testing.T) {
		expectSameTranscript(t, 25, func(server *harness.Server) string {
			host, port := address(server)
			return runProgram(t, 2*waitMax, interpreter, script, host, port, "", "")
		})
	})
	t.Run("guarded", func(t *testing.T) {
		expectSameTranscript(t, 25, func(server *harness.Server) string {
			guard(t, server)
			host, port := address(server)
			return runProgram(t, 2*waitMax, interpreter, script, host, port, "root", "secret")
		})
	})
}

func TestPythonOverJSON(t *testing.T) {
	interpreter := python(t)
	script := filepath.Join(sourceDir(t), "python", "over_json.py")
	expectSameTranscript(t, 20, func(server *harness.Server) string {
		host, port := address(server)
		return runProgram(t, 2*waitMax, interpreter, script, host, port)
	})
}

// TestJava runs etcd's Java client, jetcd.
func TestJava(t *testing.T) {
	if !asked("java") {
		t.Skip("Java's client is asked for by PROGRAMS=java")
	}
	dir := installed(t, "java", []string{"java/pom.xml", "java/src/main/java/Transcript.java"}, func(dir string) {
		runProgram(t, installMax, "mvn", "-q", "-B", "-f", filepath.Join(sourceDir(t), "java", "pom.xml"), "-Dout="+dir,
			"compile", "dependency:build-classpath", "-Dmdep.outputFile="+filepath.Join(dir, "classpath"))
	})
	classpath, err := os.ReadFile(filepath.Join(dir, "classpath"))
	if err != nil {
		t.Fatal(err)
	}
	expectSameTranscript(t, 25, func(server *harness.Server) string {
		return runProgram(t, 4*waitMax, "java", "-cp", filepath.Join(dir, "classes")+":"+string(classpath), "Transcript", server.Endpoint())
	})
}

// guard enables authentication with root and ann, who may read below /r/.
func guard(t *testing.T, server *harness.Server) {
	t.Helper()
	for _, step := range lines(`
		user add root:secret
		user grant-role root root
		role add reader
		role grant-permission reader read /r/ --prefix
		user add ann:word
		user grant-role ann reader
		auth enable
	`) {
		server.Etcdctl(strings.Fields(step.line)...)
	}
}
