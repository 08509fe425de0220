package metrics

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"basalt/tests/interop/harness"
)

// documentPath is where the standing of each family is written down.
const documentPath = "../../../docs/metrics.md"

// standing is how a family of ours stands to etcd's.
type standing string

const (
	// equal: the same work moves the same series by the same amounts.
	equal standing = "equal"
	// moves: whatever moves etcd's series moves ours; by how much is the implementation's.
	moves standing = "moves"
	// present: it is there; the value says something of the process, the disk or the clock.
	present standing = "present"
	// zero: it is there, and never moves.
	zero standing = "zero"
	// absent: it is not there.
	absent standing = "absent"
)

// row of the document: of a family, of some of its series, or of all families whose names begin so.
type row struct {
	text     string
	name     string
	prefix   bool
	labels   []string
	standing standing
	reason   string
	// test is one that moves it; then it is no matter here whether it moves.
	test string
	// seen is whether etcd shows it, moved whether the work moved it there.
	seen, moved bool
}

// document is what docs/metrics.md says.
type document struct {
	rows []*row
}

// labelPattern is one label of a row that speaks of some series.
var labelPattern = regexp.MustCompile(`[a-zA-Z_]+="[^"]*"`)

// testName is what a row says of who moves the family.
var testName = regexp.MustCompile("`(Test[A-Za-z0-9]+)`")

// readDocument reads every table whose first column is a name in backticks and whose second is a standing.
func readDocument(t *testing.T) *document {
	t.Helper()
	text, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	read := &document{}
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) < 2 || !strings.HasPrefix(cells[0], "`") {
			continue
		}
		cells = append(cells, "")
		found := &row{text: strings.Trim(cells[0], "` "), standing: standing(strings.TrimSpace(cells[1])), reason: strings.TrimSpace(cells[2])}
		switch found.standing {
		case equal, moves, present, zero, absent:
		default:
			// Tables of our own families have other columns.
			continue
		}
		if named := testName.FindStringSubmatch(found.reason); named != nil {
			found.test = named[1]
		}
		name, labels, _ := strings.Cut(found.text, "{")
		found.name, found.labels = name, labelPattern.FindAllString(labels, -1)
		found.name, found.prefix = strings.CutSuffix(found.name, "*")
		if (found.standing == zero || found.standing == absent || len(found.labels) > 0) && found.reason == "" {
			t.Errorf("%s: %s without a reason", documentPath, found.text)
		}
		if harness.UnderTest(t) == harness.Etcd && (found.standing == zero || found.standing == absent) {
			// Compared with itself, etcd lacks nothing.
			found.standing = present
		}
		read.rows = append(read.rows, found)
	}
	if len(read.rows) == 0 {
		t.Fatalf("%s says nothing of any family", documentPath)
	}
	return read
}

// of gives the row of a series, the one with the most labels; nil if the family is not in the document.
func (d *document) of(family, labels string) *row {
	var best *row
	for _, candidate := range d.rows {
		if candidate.name != family && !(candidate.prefix && strings.HasPrefix(family, candidate.name)) {
			continue
		}
		fits := true
		for _, label := range candidate.labels {
			fits = fits && strings.Contains(","+labels+",", ","+label+",")
		}
		if fits && (best == nil || len(candidate.labels) > len(best.labels)) {
			best = candidate
		}
	}
	return best
}

// checkUse fails the test for rows of what etcd does not show, and for those that nothing moved and that name no test
// which does.
func (d *document) checkUse(t *testing.T) {
	t.Helper()
	for _, row := range d.rows {
		if !row.seen && row.test == "" {
			t.Errorf("%s speaks of %s, which genuine etcd has not shown", documentPath, row.text)
		}
		if row.test != "" && !hasTest(t, row.test) {
			t.Errorf("%s says that %s moves %s: there is no such test", documentPath, row.test, row.text)
		}
		if !row.moved && row.test == "" && (row.standing == equal || row.standing == moves) {
			t.Errorf("nothing moved %s, and %s names no test that does", row.text, documentPath)
		}
	}
}

// hasTest looks for a test among those of real servers.
func hasTest(t *testing.T, name string) bool {
	t.Helper()
	beside, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	above, err := filepath.Glob("../*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(beside, above...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), fmt.Sprintf("\nfunc %s(", name)) {
			return true
		}
	}
	return false
}
