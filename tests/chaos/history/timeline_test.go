package history

import "testing"

func TestWithinIsEtcdsRange(t *testing.T) {
	for _, want := range []struct {
		key, from, end string
		within         bool
	}{
		{"a", "a", "", true}, {"aa", "a", "", false},
		{"a", "a", "b", true}, {"b", "a", "b", false}, {"az", "a", "b", true},
		{"z", "a", "\x00", true}, {"A", "a", "\x00", false}, {"\x00", "\x00", "\x00", true},
	} {
		if Within(want.key, want.from, want.end) != want.within {
			t.Errorf("%q in %q to %q: want %v", want.key, want.from, want.end, want.within)
		}
	}
}

func TestAKeptRecordIsTheSame(t *testing.T) {
	path := t.TempDir() + "/record.json.gz"
	record := &Record{First: 3, Base: State{"k": {Key: "k", Value: "\x00v", Mod: 2}}, Events: []Told{{At: 5, Event: Event{Delete: true, KV: KV{Key: "k", Mod: 4}}}}}
	if err := record.Dump(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.First != 3 || loaded.Base["k"] != record.Base["k"] || loaded.Events[0].KV != record.Events[0].KV || !loaded.Events[0].Delete {
		t.Errorf("%+v", loaded)
	}
}
