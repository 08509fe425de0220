package interop

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// diskOrder follows the files of a data directory, and of a directory for the log, through a trace, as a disk sees them that keeps only what it must: bytes
// are durable behind a sync of their file that began after they were written, names behind one of their directory.
//
// It judges: an answer leaves only when the write that it acknowledges is durable, with the names that lead to it; a
// manifest is written only when everything that it may name is; an import counts only when everything is.
type diskOrder struct {
	t       *testing.T
	dataDir string
	// roots are the data directory, and that of the log if it has one of its own.
	roots []string
	// life is the first digit of the writers whose answers are judged: reads show values of others.
	life string
	// exists has every file and directory below the roots, and these themselves.
	exists map[string]bool
	// unnamed has those whose name is not durable, with the line that made it.
	unnamed map[string]int
	// unsynced are the writes to each file, oldest first.
	unsynced map[string][]fileWrite
	// durable has the file in which each marker became durable.
	durable map[string]string
	// answers, manifests, ends of imports, creations and renames that were judged.
	answers, manifests, imports, creations, renames int
	segments                                        map[string]bool
}

// fileWrite is a write that ended, in which line.
type fileWrite struct {
	line    int
	markers []string
}

// marker of a value: writer and number. An answer to a put that asks for the previous value shows the one before it.
var marker = regexp.MustCompile(`w(\d\d)-(\d{6});`)

// markersIn finds the markers in what strace shows of some bytes.
func markersIn(text string) []string { return marker.FindAllString(text, -1) }

// next is the marker of the same writer's next value.
func next(of string) string {
	parts := marker.FindStringSubmatch(of)
	number, _ := strconv.Atoi(parts[2])
	return markerOf(parts[1], number+1)
}

func markerOf(writer string, number int) string {
	digits := strconv.Itoa(number)
	return "w" + writer + "-" + strings.Repeat("0", 6-len(digits)) + digits + ";"
}

// newDiskOrder takes what is in the directories now as durable.
func newDiskOrder(t *testing.T, dataDir string, logDirs ...string) *diskOrder {
	t.Helper()
	order := &diskOrder{
		t: t, dataDir: dataDir, roots: append([]string{dataDir}, logDirs...), exists: map[string]bool{}, unnamed: map[string]int{}, unsynced: map[string][]fileWrite{},
		durable: map[string]string{}, segments: map[string]bool{},
	}
	for _, root := range order.roots {
		_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				order.exists[path] = true
			}
			return nil
		})
	}
	return order
}

// follows says whether a path is a root or below one.
func (o *diskOrder) follows(path string) bool {
	return slices.ContainsFunc(o.roots, func(root string) bool {
		return path == root || strings.HasPrefix(path, root+"/")
	})
}

// holdsRoot says whether a directory has the name of a root.
func (o *diskOrder) holdsRoot(path string) bool {
	return slices.ContainsFunc(o.roots, func(root string) bool { return path == filepath.Dir(root) })
}

func (o *diskOrder) judge(events []syscallEvent) {
	o.t.Helper()
	for _, event := range events {
		switch {
		case strings.HasPrefix(event.path, "socket:") && !event.ended:
			o.answer(event)
		case !o.follows(event.path) && !o.holdsRoot(event.path):
		case !event.ended:
			o.manifest(event)
			o.endOfImport(event)
		case !event.failed:
			o.done(event)
		}
	}
}

// done takes a call that succeeded.
func (o *diskOrder) done(event syscallEvent) {
	switch event.name {
	case "openat":
		if strings.Contains(event.arguments, "O_CREAT") && !o.exists[event.path] {
			o.make(event.path, event.done)
			o.creations++
		}
	case "mkdir", "mkdirat":
		o.make(event.path, event.done)
	case "rename", "renameat", "renameat2":
		o.rename(event)
	case "unlink", "unlinkat":
		delete(o.exists, event.path)
		delete(o.unnamed, event.path)
		delete(o.unsynced, event.path)
	case "pwrite64", "pwritev", "write", "writev":
		o.unsynced[event.path] = append(o.unsynced[event.path], fileWrite{event.done, markersIn(event.arguments)})
	case "fsync", "fdatasync":
		o.sync(event)
	}
}

func (o *diskOrder) rename(event syscallEvent) {
	o.renames++
	o.make(event.to, event.done)
	if exchanges(event) {
		o.make(event.path, event.done)
		o.unsynced[event.path], o.unsynced[event.to] = o.unsynced[event.to], o.unsynced[event.path]
		return
	}
	o.unsynced[event.to] = o.unsynced[event.path]
	delete(o.exists, event.path)
	delete(o.unnamed, event.path)
	delete(o.unsynced, event.path)
}

func exchanges(event syscallEvent) bool { return strings.Contains(event.arguments, "RENAME_EXCHANGE") }

func (o *diskOrder) make(path string, line int) {
	o.exists[path] = true
	o.unnamed[path] = line
}

// sync makes durable what had ended before it began.
func (o *diskOrder) sync(event syscallEvent) {
	var left []fileWrite
	for _, write := range o.unsynced[event.path] {
		if write.line > event.begun {
			left = append(left, write)
			continue
		}
		for _, m := range write.markers {
			o.durable[m] = event.path
		}
	}
	o.unsynced[event.path] = left
	for path, line := range o.unnamed {
		if filepath.Dir(path) == event.path && line < event.begun {
			delete(o.unnamed, path)
		}
	}
}

// answer judges what begins to go to a client.
func (o *diskOrder) answer(event syscallEvent) {
	for _, shown := range markersIn(event.arguments) {
		if !strings.HasPrefix(shown, "w"+o.life) {
			continue
		}
		acknowledged := next(shown)
		file, found := o.durable[acknowledged]
		if !found {
			o.t.Fatalf("line %d acknowledges %s, whose write no sync has followed", event.begun+1, acknowledged)
		}
		for path := file; o.follows(path); path = filepath.Dir(path) {
			if made, unnamed := o.unnamed[path]; unnamed {
				o.t.Fatalf("line %d acknowledges %s; line %d made the name %s, and no sync of its directory has followed",
					event.begun+1, acknowledged, made+1, path)
			}
		}
		o.segments[file] = true
		o.answers++
	}
}

// manifest judges the beginning of a write to the manifest: nothing that it could name may still be lost.
func (o *diskOrder) manifest(event syscallEvent) {
	if event.name != "pwrite64" || filepath.Base(event.path) != "manifest" || !strings.Contains(event.arguments, "basaltMF") {
		return
	}
	o.manifests++
	for _, directory := range []string{"pages", "runs"} {
		within := filepath.Join(o.dataDir, directory)
		for path, made := range o.unnamed {
			if path == within || filepath.Dir(path) == within {
				o.t.Fatalf("line %d writes a manifest; line %d made the name %s, and no sync of its directory has followed",
					event.begun+1, made+1, path)
			}
		}
		for path, writes := range o.unsynced {
			if filepath.Dir(path) == within && len(writes) > 0 {
				o.t.Fatalf("line %d writes a manifest; no sync has followed the write to %s in line %d",
					event.begun+1, path, writes[0].line+1)
			}
		}
	}
}

// endOfImport judges the instants at which an import begins to count: `member` becomes the plain file, and the mark that
// it does not count goes.
func (o *diskOrder) endOfImport(event syscallEvent) {
	removes := event.name == "unlink" || event.name == "unlinkat"
	if exchanges(event) || removes && event.path == filepath.Join(o.dataDir, "importing") {
		o.imports++
		o.expectAllDurable(event.begun)
	}
}

// expectAllDurable wants a sync behind everything that was made, renamed and written before a line, but for the reserve: it
// holds nothing, and a start makes it again.
func (o *diskOrder) expectAllDurable(line int) {
	o.t.Helper()
	for path, made := range o.unnamed {
		if path == filepath.Join(o.dataDir, "reserve") {
			continue
		}
		o.t.Fatalf("line %d is reached; line %d made the name %s, and no sync of its directory has followed", line+1, made+1, path)
	}
	for path, writes := range o.unsynced {
		if len(writes) > 0 {
			o.t.Fatalf("line %d is reached; no sync has followed the write to %s in line %d", line+1, path, writes[0].line+1)
		}
	}
}
