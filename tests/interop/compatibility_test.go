package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"

	"basalt/tests/interop/harness"
)

var tableRow = regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| (.+) \\|$")

// listed is a table of docs/compatibility.md: what stands in backquotes in the first columns, and what the last says of it.
func listed(t *testing.T, section string) map[string]string {
	t.Helper()
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(document), "\n## "+section+"\n")
	if !found {
		t.Fatalf("no section %s", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	rows := map[string]string{}
	for _, row := range tableRow.FindAllStringSubmatch(text, -1) {
		columns := strings.Split(row[1]+" | "+row[2], " | ")
		name := strings.ReplaceAll(strings.Join(columns[:len(columns)-1], "/"), "`", "")
		if _, twice := rows[name]; twice {
			t.Errorf("%s stands twice in %s", name, section)
		}
		rows[name] = columns[len(columns)-1]
	}
	return rows
}

// expectListed compares the names of a table with those that there are.
func expectListed(t *testing.T, section string, names []string) map[string]string {
	t.Helper()
	rows := listed(t, section)
	for _, name := range names {
		if rows[name] == "" {
			t.Errorf("%s: %s is missing", section, name)
		}
	}
	for name, says := range rows {
		if !slices.Contains(names, name) {
			t.Errorf("%s: nobody has %s", section, name)
		}
		is, why, _ := strings.Cut(says, ": ")
		is, _, _ = strings.Cut(is, ",")
		is, _, _ = strings.Cut(is, ";")
		if is != "same" && why == "" {
			t.Errorf("%s: %s: %q says no why", section, name, says)
		}
		if !slices.Contains([]string{"same", "stricter", "not meaningful", "refused"}, is) {
			t.Errorf("%s: %s is %q", section, name, is)
		}
	}
	return rows
}

// TestCompatibilityNamesEveryRPC: those of etcd's protos, and no other.
func TestCompatibilityNamesEveryRPC(t *testing.T) {
	var names []string
	for _, file := range []protoreflect.FileDescriptor{
		pb.File_rpc_proto, lpb.File_v3lock_proto, epb.File_v3election_proto, healthpb.File_grpc_health_v1_health_proto,
	} {
		services := file.Services()
		for n := range services.Len() {
			methods := services.Get(n).Methods()
			for m := range methods.Len() {
				names = append(names, string(services.Get(n).FullName())+"/"+string(methods.Get(m).Name()))
			}
		}
	}
	if len(names) < 50 {
		t.Fatalf("%d methods only", len(names))
	}
	expectListed(t, "RPCs", names)
}

// TestCompatibilityNamesEveryFlag: those of etcd's help, with what the cases of TestEveryFlag show of each.
func TestCompatibilityNamesEveryFlag(t *testing.T) {
	names := []string{"--config-file"}
	for _, name := range flagsInHelp(t, harness.Etcd) {
		if _, ok := flagCases[name]; ok {
			names = append(names, "--"+name)
		}
	}
	for name := range flagCases {
		if !strings.HasPrefix(name, "basalt-") {
			names = append(names, "--"+name)
		}
	}
	for name, says := range expectListed(t, "Command line", names) {
		flag := flagCases[strings.TrimPrefix(name, "--")]
		wanted := "same"
		switch {
		case flag.refused != "" || flag.unknown:
			wanted = "refused"
		case flag.ignored != "":
			wanted = "not meaningful"
		}
		if is, _, _ := strings.Cut(says, ":"); is != wanted && (wanted != "same" || is != "stricter") {
			t.Errorf("%s is %q, its case says %s", name, says, wanted)
		}
	}
}

// TestCompatibilityNamesEveryAlarm: those of etcd's protos.
func TestCompatibilityNamesEveryAlarm(t *testing.T) {
	var names []string
	for number, name := range pb.AlarmType_name {
		if number != int32(pb.AlarmType_NONE) {
			names = append(names, name)
		}
	}
	expectListed(t, "Alarms", names)
}

var variable = regexp.MustCompile(`"(ETCD_[A-Z_]+)"`)

// TestCompatibilityNamesEveryVariable: those that etcd's own sources name, beside the flags'.
func TestCompatibilityNamesEveryVariable(t *testing.T) {
	rows, found := listed(t, "Environment"), 0
	for _, module := range []string{"go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/pkg/v3", "go.etcd.io/etcd/client/pkg/v3"} {
		directory, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(strings.TrimSpace(string(directory)), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, match := range variable.FindAllSubmatch(source, -1) {
				found++
				if rows[string(match[1])] == "" {
					t.Errorf("%s of %s is missing", match[1], path)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Error("etcd's sources name no variable: looked for in the wrong place")
	}
}

var healthCheck = regexp.MustCompile(`(?m)^\[\+\]([a-z_]+) `)

// TestCompatibilityOfPages asks both for each page: where they are the same, so are code and kind of content.
func TestCompatibilityOfPages(t *testing.T) {
	pages := listed(t, "Pages")
	if len(pages) < 10 {
		t.Fatalf("%d pages only", len(pages))
	}
	etcd, basalt := harness.Start(t, harness.Options{Kind: harness.Etcd}), harness.Start(t, harness.Options{Kind: harness.Basalt})
	client := newClient(nil, false)
	// Each check that etcd makes of itself is a page.
	checks := 0
	for _, page := range []string{"/livez", "/readyz"} {
		_, verbose := httpGet(t, client, etcd.Endpoint()+page+"?verbose")
		for _, check := range healthCheck.FindAllStringSubmatch(verbose, -1) {
			checks++
			if pages[page+"/"+check[1]] == "" {
				t.Errorf("%s/%s is missing", page, check[1])
			}
		}
	}
	if checks < 4 {
		t.Errorf("etcd makes %d checks only", checks)
	}
	for page, says := range pages {
		type answer struct {
			code int
			kind string
		}
		of := func(server *harness.Server) answer {
			response, _ := httpGet(t, client, server.Endpoint()+page)
			return answer{response.StatusCode, response.Header.Get("Content-Type")}
		}
		there, here := of(etcd), of(basalt)
		if strings.HasPrefix(says, "same") && page != "/metrics" && there != here {
			t.Errorf("%s: %v, etcd %v", page, here, there)
		}
		if strings.HasPrefix(says, "not meaningful") && here.code != 404 {
			t.Errorf("%s: %v", page, here)
		}
	}
}
