package programs

import (
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// commandTests try all of etcdctl between them.
var commandTests = map[string]func(*testing.T){
	"keys": tryKeys, "leases": tryLeases, "maintenance": tryMaintenance, "alarms": tryAlarms, "authentication": tryAuthentication, "tokens": tryTokens,
	"TLS": tryTLS, "watches": tryWatches, "locks and elections": tryLocksAndElections, "mirrors": tryMirrors,
	"secured mirror": trySecuredMirror, "members": tryMembers, "snapshots": trySnapshots, "checks": tryChecks, "utilities": tryUtilities,
}

// untried are flags that have nothing to do with a server.
var untried = map[string]string{
	"--discovery-srv":      "etcdctl asks the DNS, and no server has a part in it",
	"--discovery-srv-name": "the same",
	"--insecure-discovery": "the same",
}

// TestEtcdctl has every command of etcdctl's own help, and every flag of it, succeed at least once.
func TestEtcdctl(t *testing.T) {
	if asked("full") {
		harness.SetToolTimeout(t, 5*time.Minute) // a check of a minute
	}
	t.Run("commands", func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(commandTests)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				commandTests[name](t)
			})
		}
	})
	if t.Failed() || filtered() {
		return
	}
	expectAllDone(t, "etcdctl", untried)
}

// expectAllDone compares what a tool has done with what its help names.
func expectAllDone(t *testing.T, tool string, untried map[string]string) {
	t.Helper()
	done := harness.LinesDone(tool)
	commands, global := commandsOf(t, tool)
	for command, flags := range commands {
		if !slices.ContainsFunc(done, func(args []string) bool { return isOf(args, command) }) {
			t.Errorf("no test tries %s %s", tool, command)
		}
		for _, flag := range flags {
			if !slices.ContainsFunc(done, func(args []string) bool { return isOf(args, command) && has(args, flag) }) {
				t.Errorf("no test tries %s %s %s", tool, command, flag)
			}
		}
	}
	for _, flag := range global {
		_, excused := untried[flag]
		if tried := slices.ContainsFunc(done, func(args []string) bool { return has(args, flag) }); tried == excused {
			t.Errorf("%s %s: tried %v, excused %v", tool, flag, tried, excused)
		}
	}
}

var commandLine = regexp.MustCompile(`(?m)^  ([a-z-]+) +\w`)

// commandsMin is what the helps of etcdctl and etcdutl name at least: should their form change, this test is to fail.
var commandsMin = map[string]int{"etcdctl": 45, "etcdutl": 7}

// commandsOf are all commands that do something, with their own flags, and the flags of all.
func commandsOf(t *testing.T, tool string) (commands map[string][]string, global []string) {
	t.Helper()
	commands = map[string][]string{}
	var below func(path []string)
	below = func(path []string) {
		help := outputOf(t, tool, append(path, "--help")...)
		_, list, isGroup := strings.Cut(help, "Available Commands:\n")
		if len(path) == 0 && !isGroup {
			list, isGroup = help, true
		}
		if isGroup {
			for _, match := range commandLine.FindAllStringSubmatch(list, -1) {
				below(append(slices.Clone(path), match[1]))
			}
			return
		}
		own, _, _ := strings.Cut(help, "Global Flags:\n")
		commands[strings.Join(path, " ")] = flagsIn(own)
	}
	below(nil)
	if len(commands) < commandsMin[tool] {
		t.Fatalf("the help of %s has %d commands only", tool, len(commands))
	}
	if _, ok := commands["options"]; ok {
		return commands, flagsIn(outputOf(t, tool, "options"))
	}
	return commands, flagsIn(outputOf(t, tool, "--help"))
}

func outputOf(t *testing.T, tool string, args ...string) string {
	t.Helper()
	output, err := exec.Command(harness.ToolPath(t, tool), args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}

var flagLine = regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`)

func flagsIn(help string) (flags []string) {
	for _, match := range flagLine.FindAllStringSubmatch(help, -1) {
		if match[1] != "--help" {
			flags = append(flags, match[1])
		}
	}
	return flags
}

// isOf says whether a command line is one of a command: its words in their order, with flags between them.
func isOf(args []string, command string) bool {
	words := strings.Fields(command)
	for _, arg := range args {
		if len(words) > 0 && arg == words[0] {
			words = words[1:]
		} else if !strings.HasPrefix(arg, "-") {
			break
		}
	}
	return len(words) == 0
}

var shortFlags = map[string]string{"-w": "--write-out", "-i": "--interactive", "-l": "--listen"}

func has(args []string, flag string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return name == flag || shortFlags[name] == flag
	})
}

// tryUtilities: what asks no server.
func tryUtilities(t *testing.T) {
	server := harness.StartUnderTest(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if script := server.Etcdctl("completion", shell); !strings.Contains(script, "etcdctl") {
			t.Errorf("completion for %s: %s", shell, script)
		}
	}
	if text := server.Etcdctl("version"); !strings.Contains(text, "etcdctl version: 3.7.3") || !strings.Contains(text, "API version: 3.7") {
		t.Errorf("version: %s", text)
	}
	if text := server.Etcdctl("help", "put"); !strings.Contains(text, "Puts the given key") {
		t.Errorf("help: %s", text)
	}
	if text := server.Etcdctl("options"); !strings.Contains(text, "--endpoints") {
		t.Errorf("options: %s", text)
	}
}
