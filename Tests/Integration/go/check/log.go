// Package check holds what was delivered to watchers against the log of all that was written: each event in order,
// once, none missing, a revision never torn apart, nothing announced as complete that is not. It does no I/O.
package check

import (
	"hash/maphash"
	"sort"
	"sync/atomic"

	"go.etcd.io/etcd/mvcc/mvccpb"
)

// Event is what is remembered of an event: enough to know it again.
type Event struct {
	Revision int64
	Key      string
	Deletion bool
	Content  uint64 // hash of all fields of the key and value
	Previous uint64 // the same of what was there before; 0 if nothing was
}

const (
	chunkSize = 1 << 12
	maxChunks = 1 << 15
)

// Log is everything that was ever written, in order. One goroutine appends, any number read.
type Log struct {
	chunks  [maxChunks]*[chunkSize]Event
	count   int64
	last    int64
	keys    map[string]string
	content map[string]uint64
	floor   int64
}

var seed = maphash.MakeSeed()

// NewLog makes an empty log: there must be no keys in the store when it begins.
func NewLog() *Log {
	return &Log{keys: map[string]string{}, content: map[string]uint64{}}
}

// Append takes the events of whole revisions, in order.
func (log *Log) Append(events []*mvccpb.Event) {
	for _, event := range events {
		index := log.count
		key, isKnown := log.keys[string(event.Kv.Key)]
		if !isKnown {
			key = string(event.Kv.Key)
			log.keys[key] = key
		}
		made := Event{event.Kv.ModRevision, key, event.Type == mvccpb.DELETE, Hash(event.Kv), log.content[key]}
		if made.Deletion {
			delete(log.content, key)
		} else {
			log.content[key] = made.Content
		}
		if index%chunkSize == 0 {
			log.chunks[index/chunkSize] = new([chunkSize]Event)
		}
		log.chunks[index/chunkSize][index%chunkSize] = made
		atomic.StoreInt64(&log.count, index+1)
	}
	if len(events) > 0 {
		atomic.StoreInt64(&log.last, events[len(events)-1].Kv.ModRevision)
	}
}

// Complete is the revision up to which the log has everything.
func (log *Log) Complete() int64 { return atomic.LoadInt64(&log.last) }

// Count is the number of events.
func (log *Log) Count() int64 { return atomic.LoadInt64(&log.count) }

// Compacting has to be called before etcd is asked to compact.
func (log *Log) Compacting(revision int64) { atomic.StoreInt64(&log.floor, revision) }

// Floor is the newest revision that etcd was asked to compact at.
func (log *Log) Floor() int64 { return atomic.LoadInt64(&log.floor) }

// Has tells whether some event has this revision.
func (log *Log) Has(revision int64) bool {
	index := log.find(revision)
	return index < log.Count() && log.at(index).Revision == revision
}

func (log *Log) at(index int64) *Event { return &log.chunks[index/chunkSize][index%chunkSize] }

// find gives the place of the first event of this revision or a later one.
func (log *Log) find(revision int64) int64 {
	return int64(sort.Search(int(log.Count()), func(index int) bool { return log.at(int64(index)).Revision >= revision }))
}

// Hash of everything that a key and its value say.
func Hash(kv *mvccpb.KeyValue) uint64 {
	var hash maphash.Hash
	hash.SetSeed(seed)
	var numbers [40]byte
	fields := [5]int64{kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease, int64(len(kv.Key))}
	for index, field := range fields {
		for shift := 0; shift < 8; shift++ {
			numbers[index*8+shift] = byte(field >> (8 * shift))
		}
	}
	hash.Write(numbers[:])
	hash.Write(kv.Key)
	hash.Write(kv.Value)
	return hash.Sum64() | 1
}
