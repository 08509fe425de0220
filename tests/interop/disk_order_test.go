package interop

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// diskOrder follows the files of a data directory through a trace, as a disk sees them that keeps only what it must: bytes
// are durable behind a sync of their file that began after they were written, names behind one of their directory.
//
// It judges: an answer leaves only when the write that it acknowledges is durable, with the names that lead to it; a
// manifest is written only when everything that it may name is.
type diskOrder struct {
	t       *testing.T
	dataDir string
	// life is the first digit of the writers whose answers are judged: reads show values of others.
	life string
	// exists has every file and directory of the data directory, and the directory itself.
	exists map[string]bool
	// unnamed has those whose name is not durable, with the line that made it.
	unnamed map[string]int
	// unsynced are the writes to each file, oldest first.
	unsynced map[string][]fileWrite
	// durable has the file in which each marker became durable.
	durable map[string]string
	// answers, manifests, creations and renames that were judged.
	answers, manifests, creations, renames int
	segments                               map[string]bool
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

// newDiskOrder takes what is in the directory now as durable.
func newDiskOrder(t *testing.T, dataDir string) *diskOrder {
	t.Helper()
	order := &diskOrder{
		t: t, dataDir: dataDir, exists: map[string]bool{}, unnamed: map[string]int{}, unsynced: map[string][]fileWrite{},
		durable: map[string]string{}, segments: map[string]bool{},
	}
	_ = filepath.WalkDir(dataDir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			order.exists[path] = true
		}
		return nil
	})
	return order
}

func (o *diskOrder) judge(events []syscallEvent) {
	o.t.Helper()
	for _, event := range events {
		switch {
		case strings.HasPrefix(event.path, "socket:") && !event.ended:
			o.answer(event)
		case event.path != o.dataDir && !strings.HasPrefix(event.path, o.dataDir+"/") && event.path != filepath.Dir(o.dataDir):
		case !event.ended:
			o.manifest(event)
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
		delete(o.exists, event.path)
		o.make(event.to, event.done)
		o.unsynced[event.to] = o.unsynced[event.path]
		delete(o.unsynced, event.path)
		o.renames++
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
		for path := file; len(path) >= len(o.dataDir); path = filepath.Dir(path) {
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
