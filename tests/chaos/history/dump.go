package history

import (
	"compress/gzip"
	"encoding/json"
	"os"
)

// Dump writes the record as compressed JSON.
func (r *Record) Dump(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	compressed := gzip.NewWriter(file)
	if err := json.NewEncoder(compressed).Encode(r); err != nil {
		return err
	}
	if err := compressed.Close(); err != nil {
		return err
	}
	return file.Close()
}

// Load reads what Dump wrote.
func Load(path string) (*Record, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	record := new(Record)
	return record, json.NewDecoder(plain).Decode(record)
}
