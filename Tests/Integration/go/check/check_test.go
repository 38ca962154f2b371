package check

import (
	"testing"

	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"go.etcd.io/etcd/mvcc/mvccpb"
)

func put(key string, revision int64) *mvccpb.Event {
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision, Value: []byte{byte(revision)}}}
}

func deletion(key string, revision int64) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}}
}

func before(event, previous *mvccpb.Event) *mvccpb.Event {
	event.PrevKv = previous.Kv
	return event
}

func response(revision int64, events ...*mvccpb.Event) *pb.WatchResponse {
	header := &pb.ResponseHeader{ClusterId: 1, MemberId: 2, RaftTerm: 3, Revision: revision}
	return &pb.WatchResponse{Header: header, Events: events}
}

func written() *Log {
	log := NewLog()
	log.Append([]*mvccpb.Event{put("a", 2), put("b", 3), put("a", 4), put("b", 4), put("c", 4), deletion("a", 5)})
	return log
}

// Each case is told something; the kinds of violations that must be seen.
var cases = []struct {
	name  string
	spec  Spec
	told  []*pb.WatchResponse
	kinds []string
}{
	{"all is well", Spec{Key: "a", End: "c", Start: 2}, []*pb.WatchResponse{
		response(5, put("a", 2), put("b", 3)), response(5, put("a", 4), put("b", 4)), response(5, deletion("a", 5))}, nil},
	{"one is lost", Spec{Key: "a", End: "c", Start: 2}, []*pb.WatchResponse{
		response(5, put("a", 2)), response(5, put("a", 4), put("b", 4)), response(5, deletion("a", 5))}, []string{"lost"}},
	{"the last never comes", Spec{Key: "a", End: "c", Start: 4}, []*pb.WatchResponse{
		response(5, put("a", 4), put("b", 4))}, []string{"never came"}},
	{"one comes twice", Spec{Key: "b", Start: 2}, []*pb.WatchResponse{
		response(5, put("b", 3)), response(5, put("b", 3)), response(5, put("b", 4))}, []string{"repeated"}},
	{"a revision in two", Spec{Key: "a", End: "d", Start: 4}, []*pb.WatchResponse{
		response(5, put("a", 4)), response(5, put("b", 4), put("c", 4)), response(5, deletion("a", 5))}, []string{"torn"}},
	{"out of order", Spec{Key: "a", End: "c", Start: 2}, []*pb.WatchResponse{
		response(5, put("b", 3)), response(5, put("a", 2)), response(5, put("a", 4), put("b", 4)),
		response(5, deletion("a", 5))}, []string{"lost", "repeated"}},
	{"of another", Spec{Key: "b", Start: 2}, []*pb.WatchResponse{
		response(5, put("a", 2), put("b", 3)), response(5, put("b", 4))}, []string{"foreign"}},
	{"before the start", Spec{Key: "b", Start: 4}, []*pb.WatchResponse{
		response(5, put("b", 3)), response(5, put("b", 4))}, []string{"before the start"}},
	{"filtered", Spec{Key: "a", Start: 4, NoDelete: true}, []*pb.WatchResponse{
		response(5, put("a", 4)), response(5, deletion("a", 5))}, []string{"filter"}},
	{"progress too early", Spec{Key: "b", Start: 2, Notify: true}, []*pb.WatchResponse{
		response(3), response(5, put("b", 3)), response(5, put("b", 4))}, []string{"early progress"}},
	{"progress unasked", Spec{Key: "x", Start: 2}, []*pb.WatchResponse{response(5)}, []string{"unasked progress"}},
	{"header behind", Spec{Key: "b", Start: 4}, []*pb.WatchResponse{response(3, put("b", 4))}, []string{"header"}},
	{"another previous value", Spec{Key: "b", Start: 4, Previous: true}, []*pb.WatchResponse{
		response(5, before(put("b", 4), put("b", 2)))}, []string{"prev_kv"}},
	{"the previous value", Spec{Key: "b", Start: 4, Previous: true}, []*pb.WatchResponse{
		response(5, before(put("b", 4), put("b", 3)))}, nil},
	{"previous value unasked", Spec{Key: "b", Start: 4}, []*pb.WatchResponse{
		response(5, before(put("b", 4), put("b", 3)))}, []string{"prev_kv"}},
	{"another value", Spec{Key: "b", Start: 4}, []*pb.WatchResponse{
		response(5, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("b"), ModRevision: 4}})}, []string{"content"}},
}

func TestViolationsAreSeen(t *testing.T) {
	for _, one := range cases {
		for _, isLate := range []bool{false, true} {
			log, report := written(), NewReport()
			if isLate {
				// The watcher is told before the log has it.
				log = NewLog()
			}
			watcher := NewWatcher(log, report, "w", one.spec)
			watcher.Connecting()
			watcher.Created(response(5))
			for _, told := range one.told {
				watcher.Deliver(told)
			}
			if isLate {
				log.Append([]*mvccpb.Event{put("a", 2), put("b", 3), put("a", 4), put("b", 4), put("c", 4), deletion("a", 5)})
			}
			watcher.Lacks()
			if len(report.Counts) != len(one.kinds) {
				t.Errorf("%s: %v", one.name, report.Examples)
			}
			for _, kind := range one.kinds {
				if report.Counts[kind] == 0 {
					t.Errorf("%s: no %s in %v", one.name, kind, report.Examples)
				}
			}
		}
	}
}

func TestParts(t *testing.T) {
	log, report := written(), NewReport()
	watcher := NewWatcher(log, report, "w", Spec{Key: "a", End: "d", Start: 2, InParts: true})
	part := func(events ...*mvccpb.Event) *pb.WatchResponse {
		made := response(5, events...)
		made.Fragment = true
		return made
	}
	watcher.Connecting()
	watcher.Created(response(5))
	watcher.Deliver(response(5, put("a", 2), put("b", 3)))
	watcher.Deliver(part(put("a", 4), put("b", 4)))
	// After a break in the middle of a revision it comes again as a whole.
	if start := watcher.Connecting(); start != 4 {
		t.Errorf("goes on at %d", start)
	}
	watcher.Created(response(5))
	watcher.Deliver(part(put("a", 4)))
	watcher.Deliver(part(put("b", 4)))
	watcher.Deliver(response(5, put("c", 4)))
	watcher.Deliver(response(5, deletion("a", 5)))
	watcher.Lacks()
	if report.Total() != 0 {
		t.Error(report.Examples)
	}
	// The same when whole revisions came in parts before.
	later := NewWatcher(log, report, "w", Spec{Key: "a", End: "d", Start: 2, InParts: true})
	later.Connecting()
	later.Created(response(5))
	later.Deliver(part(put("a", 2), put("b", 3)))
	later.Deliver(part(put("a", 4)))
	if start := later.Connecting(); start != 4 {
		t.Errorf("goes on at %d", start)
	}
	later.Created(response(5))
	later.Deliver(response(5, put("a", 4), put("b", 4), put("c", 4), deletion("a", 5)))
	if later.Lacks(); report.Total() != 0 {
		t.Error(report.Examples)
	}
	torn := NewWatcher(log, report, "w", Spec{Key: "a", End: "d", Start: 4, InParts: true})
	torn.Connecting()
	torn.Created(response(5))
	torn.Deliver(part(put("a", 4)))
	torn.Deliver(response(5, deletion("a", 5)))
	if report.Counts["torn"] == 0 {
		t.Error("parts without an end were not seen")
	}
}

func TestCompaction(t *testing.T) {
	log, report := written(), NewReport()
	watcher := NewWatcher(log, report, "w", Spec{Key: "b", Start: 2})
	watcher.Connecting()
	watcher.Created(response(5))
	log.Compacting(4)
	canceled := &pb.WatchResponse{Header: response(5).Header, Canceled: true, CompactRevision: 4}
	if !watcher.Canceled(canceled, false) || watcher.Connecting() != 4 {
		t.Error("does not go on where it can")
	}
	watcher.Created(response(5))
	watcher.Deliver(response(5, put("b", 4)))
	if watcher.Lacks(); report.Total() != 0 {
		t.Error(report.Examples)
	}
	// It has everything up to 4 now.
	if watcher.Canceled(canceled, false); report.Counts["compaction"] == 0 {
		t.Error("a needless cancellation was not seen")
	}
}
