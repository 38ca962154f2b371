package check

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"go.etcd.io/etcd/mvcc/mvccpb"
)

// Spec is what a client asks for. End is empty for a single key, "\x00" for all keys from Key on.
type Spec struct {
	Key, End                  string
	Start                     int64
	NoPut, NoDelete           bool
	Previous, Notify, InParts bool
}

// Wants tells whether an event is for this watcher.
func (spec *Spec) Wants(event *Event) bool {
	if event.Deletion && spec.NoDelete || !event.Deletion && spec.NoPut {
		return false
	}
	return spec.Covers(event.Key)
}

// Covers tells whether a key is in the range.
func (spec *Spec) Covers(key string) bool {
	switch spec.End {
	case "":
		return key == spec.Key
	case "\x00":
		return key >= spec.Key
	}
	return key >= spec.Key && key < spec.End
}

func (spec *Spec) String() string {
	return fmt.Sprintf("%q..%q from %d, noput %v, nodelete %v, prev_kv %v, progress %v, fragment %v",
		spec.Key, spec.End, spec.Start, spec.NoPut, spec.NoDelete, spec.Previous, spec.Notify, spec.InParts)
}

// Watcher is one watch as its client sees it, across all reconnects. It is not for several goroutines at once.
//
// What it is told is judged as soon as the log reaches that far.
type Watcher struct {
	Spec
	Name     string
	log      *Log
	report   *Report
	pending  []item
	position int64 // in the log: what comes next is here or later
	placed   bool
	last     int64 // revision of the last event judged
	origin   int64 // nothing may be older
	next     int64 // where to go on after a break
	begun    bool  // next is known
	inParts  bool
	partial  int64
	created  bool
	ended    bool
	answers  int // since created
	history  [8]item
	breaks   int
	steps    int
}

type kind int

const (
	isStart kind = iota
	isEvents
	isProgress
	isNotice
	isJump
	isCompacted
)

type item struct {
	kind     kind
	revision int64
	response *pb.WatchResponse
}

// NewWatcher makes one that has not been asked for yet.
func NewWatcher(log *Log, report *Report, name string, spec Spec) *Watcher {
	return &Watcher{Spec: spec, Name: name, log: log, report: report, next: spec.Start, begun: spec.Start > 0}
}

// Connecting says that the client asks for it (again); the start revision it has to ask for is returned.
func (watcher *Watcher) Connecting() int64 {
	watcher.created, watcher.inParts = false, false
	watcher.breaks++
	if !watcher.begun {
		return 0
	}
	if watcher.partial > 0 {
		// The first parts come again.
		watcher.push(item{kind: isJump, revision: watcher.partial})
		watcher.partial = 0
	}
	return watcher.next
}

// Created takes the answer to the request. It tells whether the watch is there.
func (watcher *Watcher) Created(response *pb.WatchResponse) bool {
	watcher.header(response, 0)
	if watcher.created {
		watcher.fail("created twice", "%v", response)
	}
	watcher.created = true
	if response.Canceled {
		watcher.fail("refused", "%s", response.CancelReason)
		watcher.ended = true
		return false
	}
	if !watcher.begun {
		watcher.begun, watcher.next = true, response.Header.Revision+1
	}
	if !watcher.placed {
		watcher.placed = true
		watcher.push(item{kind: isStart, revision: watcher.next})
	}
	return true
}

// Deliver takes a response with events, or a progress notification, of this watch.
func (watcher *Watcher) Deliver(response *pb.WatchResponse) {
	if watcher.ended {
		watcher.fail("after the end", "%d events after it was cancelled", len(response.Events))
		return
	}
	if !watcher.created {
		watcher.fail("before created", "%d events", len(response.Events))
	}
	if len(response.Events) == 0 {
		if !watcher.Notify {
			watcher.fail("unasked progress", "revision %d", response.Header.Revision)
		}
		watcher.header(response, 0)
		watcher.promised(isNotice, response.Header.Revision)
		return
	}
	last := response.Events[len(response.Events)-1].Kv.ModRevision
	watcher.header(response, last)
	if response.Fragment && !watcher.InParts {
		watcher.fail("fragment", "not asked for, revision %d", last)
	}
	if response.Fragment {
		// Whatever is older than the revision that is cut has come.
		watcher.partial = last
		watcher.next = maximum(watcher.next, last)
	} else {
		watcher.partial = 0
		watcher.next = maximum(watcher.next, last+1)
	}
	watcher.push(item{isEvents, last, response})
}

// Progress takes the promise, asked for, that everything up to the revision has been delivered.
func (watcher *Watcher) Progress(revision int64) { watcher.promised(isProgress, revision) }

func (watcher *Watcher) promised(kind kind, revision int64) {
	if watcher.created && !watcher.ended {
		watcher.push(item{kind: kind, revision: revision})
		watcher.next = maximum(watcher.next, revision+1)
	}
}

// Canceled takes the end of the watch. It tells whether the client may go on at Connecting's revision.
func (watcher *Watcher) Canceled(response *pb.WatchResponse, isWanted bool) bool {
	if watcher.ended {
		watcher.fail("after the end", "cancelled twice: %v", response)
		return false
	}
	if response.CompactRevision > 0 {
		watcher.push(item{kind: isCompacted, revision: response.CompactRevision})
		watcher.partial = 0
		watcher.next = maximum(watcher.next, response.CompactRevision)
		return true
	}
	if !isWanted {
		watcher.fail("cancelled", "reason %q", response.CancelReason)
	}
	watcher.ended = true
	return false
}

func maximum(one, other int64) int64 {
	if one > other {
		return one
	}
	return other
}

func (watcher *Watcher) header(response *pb.WatchResponse, last int64) {
	header := response.Header
	if header == nil || header.MemberId == 0 || header.RaftTerm == 0 || header.ClusterId == 0 || header.Revision <= 0 {
		watcher.fail("header", "%v", header)
	} else if header.Revision < last {
		watcher.fail("header", "revision %d with an event of %d", header.Revision, last)
	}
}

func (watcher *Watcher) push(one item) {
	watcher.pending = append(watcher.pending, one)
	watcher.Judge()
}

// Judge looks at everything up to where the log is complete.
func (watcher *Watcher) Judge() {
	done, complete := 0, watcher.log.Complete()
	for done < len(watcher.pending) && watcher.pending[done].due() <= complete {
		watcher.judge(&watcher.pending[done])
		done++
	}
	if done > 0 {
		left := copy(watcher.pending, watcher.pending[done:])
		for index := left; index < len(watcher.pending); index++ {
			watcher.pending[index].response = nil
		}
		watcher.pending = watcher.pending[:left]
	}
}

func (one *item) String() string {
	name := [...]string{"start", "events", "progress", "notice", "jump to", "compacted at"}[one.kind]
	if one.kind == isEvents {
		return fmt.Sprintf("%d events %d to %d", len(one.response.Events), one.response.Events[0].Kv.ModRevision, one.revision)
	}
	return fmt.Sprintf("%s %d", name, one.revision)
}

// due is the revision that the log must have for the item to be judged.
func (one *item) due() int64 {
	switch one.kind {
	case isStart, isJump, isCompacted:
		return one.revision - 1
	}
	return one.revision
}

func (watcher *Watcher) judge(one *item) {
	log := watcher.log
	watcher.history[watcher.steps%len(watcher.history)] = *one
	watcher.steps++
	switch one.kind {
	case isStart:
		watcher.position, watcher.origin = log.find(one.revision), one.revision
	case isJump:
		if place := log.find(one.revision); place < watcher.position {
			watcher.position, watcher.last = place, one.revision-1
		}
	case isCompacted:
		// Its client had everything below `due`; only if that is compacted may it be cancelled.
		due := maximum(watcher.origin, watcher.last+1)
		if one.revision <= due {
			watcher.fail("compaction", "cancelled at %d, needs %d", one.revision, due)
		}
		if one.revision > log.Floor() {
			watcher.fail("compaction", "cancelled at %d, compacted %d", one.revision, log.Floor())
		}
		watcher.position, watcher.inParts = maximum(watcher.position, log.find(one.revision)), false
	case isProgress, isNotice:
		if missing := watcher.expected(one.revision); missing != nil {
			watcher.fail("early progress", "%d, but %d of %q has not come", one.revision, missing.Revision, missing.Key)
		}
	case isEvents:
		watcher.judgeEvents(one.response)
	}
}

// expected is the next event up to a revision that the watcher has to be told.
func (watcher *Watcher) expected(revision int64) *Event {
	for count := watcher.log.Count(); watcher.position < count; watcher.position++ {
		event := watcher.log.at(watcher.position)
		if event.Revision > revision {
			return nil
		}
		if watcher.Wants(event) {
			return event
		}
	}
	return nil
}

func (watcher *Watcher) judgeEvents(response *pb.WatchResponse) {
	for index, event := range response.Events {
		if watcher.inParts && index == 0 && event.Kv.ModRevision != watcher.last {
			// Parts may also end where a revision does.
			watcher.whole("followed by %d", event.Kv.ModRevision)
		}
		watcher.judgeEvent(event)
	}
	watcher.inParts = response.Fragment
	if response.Fragment {
		return
	}
	watcher.whole("at the end of a response")
}

// whole checks that nothing of the last revision is missing.
func (watcher *Watcher) whole(format string, values ...interface{}) {
	if rest := watcher.expected(watcher.last); rest != nil {
		where := fmt.Sprintf(format, values...)
		watcher.fail("torn", "revision %d lacks %q of %d, %s", watcher.last, rest.Key, rest.Revision, where)
	}
}

func (watcher *Watcher) judgeEvent(event *mvccpb.Event) {
	revision := event.Kv.ModRevision
	isDeletion := event.Type == mvccpb.DELETE
	if !watcher.Covers(string(event.Kv.Key)) {
		watcher.fail("foreign", "%q at %d", event.Kv.Key, revision)
		return
	}
	if isDeletion && watcher.NoDelete || !isDeletion && watcher.NoPut {
		watcher.fail("filter", "%v of %q at %d", event.Type, event.Kv.Key, revision)
		return
	}
	if revision < watcher.origin {
		watcher.fail("before the start", "%d, start %d", revision, watcher.origin)
		return
	}
	wanted := watcher.expected(revision)
	for wanted != nil && (wanted.Revision < revision) {
		watcher.fail("lost", "%d of %q, next came %d", wanted.Revision, wanted.Key, revision)
		watcher.position++
		wanted = watcher.expected(revision)
	}
	if wanted == nil {
		watcher.fail("repeated", "%d of %q, last was %d", revision, event.Kv.Key, watcher.last)
		return
	}
	watcher.position++
	watcher.last = maximum(watcher.last, revision)
	if wanted.Content != Hash(event.Kv) || wanted.Deletion != isDeletion {
		watcher.fail("content", "%d: %q instead of %q", revision, event.Kv.Key, wanted.Key)
	}
	watcher.judgePrevious(event, wanted)
}

func (watcher *Watcher) judgePrevious(event *mvccpb.Event, wanted *Event) {
	if event.PrevKv == nil {
		// What is compacted cannot be told.
		if !watcher.Spec.Previous || wanted.Previous == 0 || wanted.Revision-1 < watcher.log.Floor() {
			return
		}
		// etcd notes that previous values are wanted a moment after the watch can be told events, and now and then looks
		// for one in vain while the revision is being written.
		watcher.report.Tolerate("no prev_kv")
	} else if !watcher.Spec.Previous {
		watcher.fail("prev_kv", "not asked for, at %d of %q", wanted.Revision, wanted.Key)
	} else if Hash(event.PrevKv) != wanted.Previous {
		watcher.fail("prev_kv", "another at %d of %q", wanted.Revision, wanted.Key)
	}
}

// missing is what it should have been told by now, or nil.
func (watcher *Watcher) missing() *Event {
	watcher.Judge()
	if watcher.ended || !watcher.placed || len(watcher.pending) > 0 && watcher.pending[0].kind == isStart {
		return nil
	}
	return watcher.expected(watcher.log.Complete())
}

// IsDone tells whether it has been told everything that is in the log.
func (watcher *Watcher) IsDone() bool {
	return watcher.ended || watcher.created && watcher.missing() == nil
}

// Lacks reports what never came, and what came of which nobody knows; to be called once nothing more can come.
func (watcher *Watcher) Lacks() {
	if watcher.ended {
		return
	}
	if !watcher.created {
		watcher.fail("no answer", "created never came")
	}
	for missing := watcher.missing(); missing != nil; missing = watcher.missing() {
		watcher.fail("never came", "%d of %q, last was %d", missing.Revision, missing.Key, watcher.last)
		watcher.position++
	}
	for _, one := range watcher.pending {
		if (one.kind == isEvents || one.kind == isProgress || one.kind == isNotice) && one.revision > watcher.log.Complete() {
			watcher.fail("from the future", "%d, the newest is %d", one.revision, watcher.log.Complete())
		}
	}
}

func (watcher *Watcher) fail(kind, format string, values ...interface{}) {
	if watcher.report.Fail(kind) {
		watcher.report.Explain(kind, fmt.Sprintf("%s (%v): %s; before: %s", watcher.Name, &watcher.Spec,
			fmt.Sprintf(format, values...), watcher.before()))
	}
}

// before is what happened last, for explanations.
func (watcher *Watcher) before() string {
	var parts []string
	for step := watcher.steps - len(watcher.history); step < watcher.steps; step++ {
		if step >= 0 {
			one := &watcher.history[step%len(watcher.history)]
			parts = append(parts, one.String())
		}
	}
	return fmt.Sprintf("%s; asked for %d times", strings.Join(parts, ", "), watcher.breaks)
}
