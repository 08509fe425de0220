package interop

import (
	"regexp"
	"strings"
	"testing"
)

// syscallEvent is the beginning or the end of a system call, in the order in which strace saw them. A call that another
// thread did not interrupt in the log has both on one line.
type syscallEvent struct {
	name string
	// path of the file, directory or socket that the call is about; of a rename the old name.
	path string
	// to is the new name of a rename.
	to string
	// arguments as strace prints them.
	arguments string
	// begun is the line of the beginning, done that of the end, once it has ended.
	begun, done int
	ended       bool
	// failed is known at the end.
	failed bool
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
	callResult  = regexp.MustCompile(`\) += (-?\d+|\?)`)
	firstFile   = regexp.MustCompile(`^\d+<([^>]*)>`)
	quotedNames = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
)

// parseStrace turns the lines of `strace -f -y` into events.
func parseStrace(t *testing.T, lines []string) []syscallEvent {
	t.Helper()
	pending := map[string]syscallEvent{}
	var events []syscallEvent
	for number, line := range lines {
		if match := resumedLine.FindStringSubmatch(line); match != nil {
			event, found := pending[match[1]]
			if !found {
				t.Fatalf("line %d resumes a call that nobody began: %s", number, line)
			}
			delete(pending, match[1])
			events = append(events, ended(event, number, match[2]))
			continue
		}
		match := callLine.FindStringSubmatch(line)
		if match == nil {
			continue // a signal or an exit
		}
		event := syscallEvent{name: match[2], arguments: match[3], begun: number}
		if file := firstFile.FindStringSubmatch(event.arguments); file != nil {
			event.path = file[1]
		} else if names := quotedNames.FindAllStringSubmatch(event.arguments, 2); len(names) > 0 {
			event.path = names[0][1]
			if len(names) > 1 {
				event.to = names[1][1]
			}
		}
		events = append(events, event)
		if strings.HasSuffix(line, "<unfinished ...>") {
			pending[match[1]] = event
		} else {
			events = append(events, ended(event, number, event.arguments))
		}
	}
	return events
}

func ended(event syscallEvent, line int, rest string) syscallEvent {
	results := callResult.FindAllStringSubmatch(rest, -1)
	event.ended, event.done = true, line
	event.failed = len(results) == 0 || strings.HasPrefix(results[len(results)-1][1], "-") || results[len(results)-1][1] == "?"
	return event
}

func TestStraceLogIsRead(t *testing.T) {
	events := parseStrace(t, []string{
		`7 openat(AT_FDCWD</x>, "/d/a", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3</d/a>`,
		`7 pwrite64(3</d/a>, "b) = -1\"", 9, 0 <unfinished ...>`,
		`8 rename("/d/a", "/d/b")    = -1 EIO (Input/output error) (INJECTED)`,
		`7 <... pwrite64 resumed>)   = 9`,
		`8 +++ exited with 0 +++`,
	})
	want := []syscallEvent{
		{name: "openat", path: "/d/a"}, {name: "openat", path: "/d/a", ended: true},
		{name: "pwrite64", path: "/d/a", begun: 1},
		{name: "rename", path: "/d/a", to: "/d/b", begun: 2},
		{name: "rename", path: "/d/a", to: "/d/b", begun: 2, done: 2, ended: true, failed: true},
		{name: "pwrite64", path: "/d/a", begun: 1, done: 3, ended: true},
	}
	if len(events) != len(want) {
		t.Fatalf("%d events, want %d: %+v", len(events), len(want), events)
	}
	for n, event := range events {
		event.arguments = ""
		if event != want[n] {
			t.Errorf("event %d is %+v, want %+v", n, event, want[n])
		}
	}
}
