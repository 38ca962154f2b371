package main

import (
	"sort"
	"time"

	"go.etcd.io/etcd/mvcc/mvccpb"

	"../check"
	"../linear"
)

// version of what is in a range: from a revision on it had this state.
type version struct {
	revision int64
	state    uint64
	count    int
}

// Judge knows all that was in the store, and when.
type Judge struct {
	report   *check.Report
	versions [][]version        // of each span
	states   []map[uint64][]int // versions of each span that have this state
	stalest  time.Duration
}

func newJudge(events []*mvccpb.Event, report *check.Report) *Judge {
	made := &Judge{report: report}
	for index := range spans {
		all := []version{{}}
		states := map[uint64][]int{}
		contents := map[string]uint64{}
		for _, event := range events {
			key := string(event.Kv.Key)
			if !spans[index].Covers(key) {
				continue
			}
			last := all[len(all)-1]
			next := version{event.Kv.ModRevision, last.state, last.count}
			if before, isThere := contents[key]; isThere {
				next.state ^= before
				next.count--
				delete(contents, key)
			}
			if event.Type == mvccpb.PUT {
				contents[key] = check.Hash(event.Kv)
				next.state ^= contents[key]
				next.count++
			}
			if last.revision == next.revision {
				all[len(all)-1] = next
			} else {
				all = append(all, next)
			}
		}
		for place, one := range all {
			states[one.state] = append(states[one.state], place)
		}
		made.versions, made.states = append(made.versions, all), append(made.states, states)
	}
	return made
}

// at is the version that a revision has.
func at(versions []version, revision int64) int {
	return sort.Search(len(versions), func(place int) bool { return versions[place].revision > revision }) - 1
}

func (judge *Judge) judge(client *Client) {
	// What the connection has seen for certain, and the newest header.
	var seen, newest int64
	for _, read := range client.reads {
		versions := judge.versions[read.span]
		places := judge.states[read.span][read.state]
		name := spans[read.span].Key + ".." + spans[read.span].End
		if len(places) == 0 {
			judge.report.Violation("content", "%s: %d keys of %q that were never there together", client.name, read.count, name)
			continue
		}
		if read.at > 0 {
			if place := at(versions, read.at); versions[place].state != read.state {
				judge.report.Violation("past", "%s: %q at %d was something else", client.name, name, read.at)
			}
			continue
		}
		if place := at(versions, read.header); place < 0 || versions[place].state != read.state {
			judge.report.Violation("header", "%s: %q was not so at %d, which the header says", client.name, name, read.header)
		}
		first, last := places[0], places[len(places)-1]
		if read.own > seen {
			seen = read.own
		}
		// The first revision that it does not show.
		if last+1 < len(versions) {
			missing := versions[last+1].revision
			if missing <= read.own {
				judge.report.Violation("own write", "%s: %q without its own of %d", client.name, name, missing)
			} else if missing <= seen {
				judge.report.Violation("backwards", "%s: %q without %d, has seen %d", client.name, name, missing, seen)
			}
			judge.age(client, &read, name, missing)
		}
		if read.header < newest {
			judge.report.Tolerate("header backwards")
		} else {
			newest = read.header
		}
		if versions[first].revision > seen {
			seen = versions[first].revision
		}
	}
}

// age looks at how long it had been known that a read shows too little.
func (judge *Judge) age(client *Client, read *Read, name string, missing int64) {
	since, isKnown := known.since[missing]
	if !isKnown || since >= read.start {
		return
	}
	age := read.start - since
	if !read.isSerializable {
		judge.report.Violation("stale", "%s: %q without %d, known for %v, though not serializable", client.name, name,
			missing, age)
		return
	}
	if age > judge.stalest {
		judge.stalest = age
	}
	if age > *bound+*slack {
		judge.report.Violation("stale", "%s: %q without %d, known for %v", client.name, name, missing, age)
	}
}

// registers looks whether each register behaves as one.
func (judge *Judge) registers(all []*Client) {
	histories := map[string][]linear.Operation{}
	for _, client := range all {
		for key, operations := range client.register {
			histories[key] = append(histories[key], operations...)
		}
	}
	for key, history := range histories {
		if !linear.Check(history) {
			judge.report.Violation("linearizability", "register %q, %d operations", key, len(history))
		}
	}
}
