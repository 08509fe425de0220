package programs

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// step is one command line of a script. `$name` in it is what a step before kept; `$endpoint` is the server's.
type step struct {
	line  string
	args  []string // instead of a line, where an argument holds a space
	stdin string
	// keep names the second word of the output.
	keep string
	// message is what `-w protobuf` prints.
	message proto.Message
}

// lines are steps without more.
func lines(text string) (steps []step) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			steps = append(steps, step{line: line})
		}
	}
	return steps
}

// inAllFormats are the steps of one command in every format, and in hex.
func inAllFormats(command string, message proto.Message) (steps []step) {
	for _, format := range []string{"simple", "json", "fields", "table"} {
		steps = append(steps, step{line: command + " -w " + format})
	}
	return append(steps, step{line: command + " -w protobuf", message: message}, step{line: command + " --hex -w json"}, step{line: command + " --hex"})
}

// side is one of the two servers of a script.
type side struct {
	server *harness.Server // or what stands before one
	behind *harness.Server
	kept   map[string]string
	ids    *strings.Replacer
}

// newSide asks a server itself for its ids. The script goes to it, or to a proxy in front of it.
func newSide(t *testing.T, server, front *harness.Server) *side {
	t.Helper()
	s := &side{server: front, behind: server, kept: map[string]string{"endpoint": front.Endpoint(), "peer": server.PeerURL()}}
	text := server.Etcdctl("member", "list", "-w", "json")
	var list struct {
		Header struct {
			Cluster uint64 `json:"cluster_id"`
		}
		Members []struct{ ID uint64 }
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.Members) != 1 {
		t.Fatalf("member list: %v in %s", err, text)
	}
	s.keepID("cluster", list.Header.Cluster)
	s.keepID("member", list.Members[0].ID)
	return s
}

// keepID keeps an id in the two ways in which etcdctl prints it.
func (s *side) keepID(name string, id uint64) {
	s.kept[name], s.kept[name+"-decimal"] = strconv.FormatUint(id, 16), strconv.FormatUint(id, 10)
	s.kept[name+"-padded"] = fmt.Sprintf("%016x", id)
	pairs := []string{s.server.Endpoint(), "ENDPOINT", s.server.Target(), "TARGET", s.behind.Endpoint(), "SERVER", s.behind.PeerURL(), "PEER"}
	// The padded form first: the other is its end.
	for _, form := range []string{"-padded", "", "-decimal"} {
		for kept := range s.kept {
			if name, isID := strings.CutSuffix(kept, "-padded"); isID {
				pairs = append(pairs, s.kept[name+form], strings.ToUpper(name))
			}
		}
	}
	s.ids = strings.NewReplacer(pairs...)
}

func (s *side) run(t *testing.T, step step) (answer string) {
	t.Helper()
	args := step.args
	if args == nil {
		args = strings.Fields(step.line)
	}
	filled := make([]string, len(args))
	for n, arg := range args {
		for name, value := range s.kept {
			if arg == "$"+name || strings.HasSuffix(arg, "=$"+name) {
				arg = strings.Replace(arg, "$"+name, value, 1)
			}
		}
		filled[n] = arg
	}
	result := s.server.EtcdctlResult(step.stdin, filled...)
	if step.keep != "" {
		words := strings.Fields(result.Stdout)
		if len(words) < 2 {
			t.Fatalf("%s of %s printed %q", step.text(), s.server.Kind, result.Stdout)
		}
		id, err := strconv.ParseUint(words[1], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		s.keepID(step.keep, id)
	}
	if step.message != nil && result.Code == 0 {
		message := proto.Clone(step.message)
		if err := proto.Unmarshal([]byte(result.Stdout), message); err != nil {
			t.Fatalf("%s of %s printed %q: %v", step.text(), s.server.Kind, result.Stdout, err)
		}
		// prototext varies its spaces by intention.
		result.Stdout = strings.Join(strings.Fields(prototext.MarshalOptions{Multiline: true}.Format(message)), " ")
	}
	return fmt.Sprintf("exit %d\n%s\n%s", result.Code, s.normal(result.Stdout), s.normal(withoutLogs(result.Stderr)))
}

func (s step) text() string {
	if s.args != nil {
		return fmt.Sprintf("etcdctl %q", s.args)
	}
	return "etcdctl " + s.line
}

// withoutLogs drops the log lines of etcd's client library, which have times in them.
func withoutLogs(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, `{"level":`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// What two servers need not have in common: times, terms, indexes of the log and sizes of files.
var unequal = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`\b\d+(\.\d+)?(ns|µs|ms|s)\b`), "DURATION"},
	{regexp.MustCompile(`(?i)("?(raft_?term|raft_?index|raft_?applied_?index|dbsize|dbsizeinuse|ttl|took)"? ?: ?)"?[\w.]+"?`), "${1}N"},
	{regexp.MustCompile(`\b\d+(\.\d+)? [kMG]?B\b`), "SIZE"},
	{regexp.MustCompile(`\b\d+%`), "N%"},
	{regexp.MustCompile(`larger than max \(\d+`), "larger than max (N"},
	{regexp.MustCompile(`(true, false,|true [|│] +false [|│]) +\d+( [|│]|,) +\d+( [|│]|,) +\d+`), "$1 TERM INDEX INDEX"},
}

var blanks, lineDrawing = regexp.MustCompile(`[ \t]+`), regexp.MustCompile(`[-─]{2,}`)

func (s *side) normal(text string) string {
	text = s.ids.Replace(text)
	for _, each := range unequal {
		text = each.pattern.ReplaceAllString(text, each.name)
	}
	// The widths of a table are those of what stands in it.
	return lineDrawing.ReplaceAllString(blanks.ReplaceAllString(text, " "), "-")
}

// sideBySide runs a script on genuine etcd and on the server under test, and every answer must be equal.
func sideBySide(t *testing.T, script []step, args ...string) {
	t.Helper()
	direct := func(server *harness.Server) *harness.Server { return server }
	sideBySideThrough(t, script, direct, args...)
}

// sideBySideThrough sends a script to what `front` puts before each server.
func sideBySideThrough(t *testing.T, script []step, front func(*harness.Server) *harness.Server, args ...string) {
	t.Helper()
	start := func(kind harness.Kind) *side {
		server := harness.Start(t, harness.Options{Kind: kind, Args: args})
		return newSide(t, server, front(server))
	}
	kind := harness.UnderTest(t)
	etcd, tested := start(harness.Etcd), start(kind)
	for _, step := range script {
		want, got := etcd.run(t, step), tested.run(t, step)
		if want != got {
			t.Errorf("%s\ngenuine etcd: %s\n%s: %s", step.text(), want, kind, got)
		}
	}
}

// Types of `-w protobuf`.
var (
	rangeMessage  = &pb.RangeResponse{}
	putMessage    = &pb.PutResponse{}
	deleteMessage = &pb.DeleteRangeResponse{}
	txnMessage    = &pb.TxnResponse{}
	alarmMessage  = &pb.AlarmResponse{}
	memberMessage = &pb.MemberListResponse{}
	roleMessage   = &pb.AuthRoleGetResponse{}
	rolesMessage  = &pb.AuthRoleListResponse{}
	userMessage   = &pb.AuthUserGetResponse{}
	usersMessage  = &pb.AuthUserListResponse{}
	statusMessage = &pb.AuthStatusResponse{}
)
