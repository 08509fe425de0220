package harness

import (
	"slices"
	"sync"
)

// What etcdctl and etcdutl have done, for tests that have to try all of their commands and flags.
var (
	linesMutex sync.Mutex
	linesDone  = map[string][][]string{}
)

func lineDone(tool string, args []string) {
	linesMutex.Lock()
	defer linesMutex.Unlock()
	linesDone[tool] = append(linesDone[tool], slices.Clone(args))
}

// LinesDone are the arguments, without the harness's own, with which a tool has succeeded in this process. A session has
// succeeded when it has printed something, or when the test says so.
func LinesDone(tool string) [][]string {
	linesMutex.Lock()
	defer linesMutex.Unlock()
	return slices.Clone(linesDone[tool])
}

// HasWorked counts a session that prints nothing among the lines done: the test has seen what it does.
func (s *Session) HasWorked() { lineDone("etcdctl", s.args) }
