package main

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"../check"
)

// Watching is a watch on a stream.
type Watching struct {
	check     *check.Watcher
	id        int64 // that it has, or was asked for
	isLeaving bool
	isBound   bool
	bound     time.Time // since when
}

// Stream is one Watch call; when it ends there is another one after it, with the same watches.
type Stream struct {
	client   *Client
	index    int
	mutex    sync.Mutex // with it requests are sent too
	random   *rand.Rand
	names    int
	watchers []*Watching
	waiting  []*Watching
	asked    []time.Time // for progress, as far as it may still be answered
	byID     map[int64]*Watching
	left     map[int64]bool // ids whose cancellation etcd may answer a second time
	call     pb.Watch_WatchClient
	cancel   context.CancelFunc
	finished chan struct{}
	stalled  int64 // until then nothing is read, nanoseconds
	isOwn    int32 // whether we ended it
	leader   bool
	notYet   time.Time
}

func newStream(client *Client, index int) *Stream {
	made := &Stream{client: client, index: index, random: chance(client.number*1000 + index + 10_000)}
	made.leader = made.random.Intn(4) == 0
	for number := 0; number < *watchers; number++ {
		made.watchers = append(made.watchers, made.another())
	}
	return made
}

func (stream *Stream) another() *Watching {
	client := stream.client
	stream.names++
	name := fmt.Sprintf("watch %d of stream %d.%d", stream.names, client.number, stream.index)
	return &Watching{check: check.NewWatcher(client.log, client.report, name, client.spec(stream.random))}
}

// open makes the call if there is none.
func (stream *Stream) open() {
	if stream.finished != nil {
		select {
		case <-stream.finished:
			stream.cancel()
			stream.finished = nil
			stream.notYet = time.Now().Add(time.Duration(stream.client.random.Intn(50)) * time.Millisecond)
		default:
			return
		}
	}
	if time.Now().Before(stream.notYet) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	if stream.leader {
		ctx = metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
	}
	call, err := pb.NewWatchClient(stream.client.connection).Watch(ctx)
	if err != nil {
		cancel()
		stream.notYet = time.Now().Add(50 * time.Millisecond)
		return
	}
	stream.mutex.Lock()
	stream.call, stream.cancel, stream.finished = call, cancel, make(chan struct{})
	stream.byID, stream.left, stream.waiting, stream.asked = map[int64]*Watching{}, map[int64]bool{}, nil, nil
	atomic.StoreInt32(&stream.isOwn, 0)
	kept := stream.watchers[:0]
	for _, watcher := range stream.watchers {
		if !watcher.isLeaving {
			kept = append(kept, watcher)
		}
	}
	stream.watchers = kept
	for len(stream.watchers) < *watchers {
		stream.watchers = append(stream.watchers, stream.another())
	}
	for _, watcher := range stream.watchers {
		stream.create(watcher)
	}
	stream.mutex.Unlock()
	go stream.read(ctx, call, stream.finished)
}

// create asks for a watch. The lock is held.
func (stream *Stream) create(watcher *Watching) {
	spec := watcher.check.Spec
	request := &pb.WatchCreateRequest{
		Key: []byte(spec.Key), RangeEnd: []byte(spec.End), StartRevision: watcher.check.Connecting(),
		PrevKv: spec.Previous, ProgressNotify: spec.Notify, Fragment: spec.InParts,
	}
	if spec.NoPut {
		request.Filters = append(request.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if spec.NoDelete {
		request.Filters = append(request.Filters, pb.WatchCreateRequest_NODELETE)
	}
	watcher.id, watcher.isBound = 0, false
	if stream.random.Intn(4) == 0 {
		// Far from those that are given out.
		stream.names++
		watcher.id = int64(1_000_000 + stream.names)
		request.WatchId = watcher.id
	}
	stream.waiting = append(stream.waiting, watcher)
	stream.call.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}})
}

func (stream *Stream) isOpen() bool {
	if stream.finished == nil {
		return false
	}
	select {
	case <-stream.finished:
		return false
	default:
		return true
	}
}

// ask for progress.
func (stream *Stream) ask() {
	if stream.isOpen() {
		stream.mutex.Lock()
		defer stream.mutex.Unlock()
		stream.asked = append(stream.asked, time.Now())
		stream.call.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
			ProgressRequest: &pb.WatchProgressRequest{}}})
	}
}

// replace cancels a watch and asks for another.
func (stream *Stream) replace() {
	if !stream.isOpen() {
		return
	}
	stream.mutex.Lock()
	defer stream.mutex.Unlock()
	if len(stream.watchers) == 0 {
		return
	}
	watcher := stream.watchers[stream.random.Intn(len(stream.watchers))]
	if !watcher.isBound || watcher.isLeaving {
		return
	}
	watcher.isLeaving = true
	stream.call.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
		CancelRequest: &pb.WatchCancelRequest{WatchId: watcher.id}}})
	another := stream.another()
	stream.watchers = append(stream.watchers, another)
	stream.create(another)
}

// stall stops reading for a while.
func (stream *Stream) stall(duration time.Duration) {
	atomic.StoreInt64(&stream.stalled, time.Now().Add(duration).UnixNano())
	count(&counts.Stuck, 1)
}

// breakOff ends the call as a client does that has vanished.
func (stream *Stream) breakOff() {
	if stream.finished != nil {
		count(&counts.Breaks, 1)
		atomic.StoreInt32(&stream.isOwn, 1)
		stream.cancel()
		<-stream.finished
		stream.finished = nil
	}
}

func (stream *Stream) read(ctx context.Context, call pb.Watch_WatchClient, finished chan struct{}) {
	defer close(finished)
	for {
		if until := time.Unix(0, atomic.LoadInt64(&stream.stalled)); time.Now().Before(until) {
			select {
			case <-ctx.Done():
			case <-stream.client.clients.isCalm:
			case <-time.After(time.Until(until)):
			}
		}
		response, err := call.Recv()
		if err != nil {
			if atomic.LoadInt32(&stream.isOwn) == 0 && ctx.Err() == nil {
				stream.ended(err)
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
		count(&counts.Responses, 1)
		stream.mutex.Lock()
		stream.take(response)
		stream.mutex.Unlock()
	}
}

func (stream *Stream) ended(err error) {
	said := status.Convert(err)
	ends.Lock()
	defer ends.Unlock()
	text := said.Message()
	if len(text) > 40 {
		text = text[:40]
	}
	ends.byReason[said.Code().String()+": "+text]++
	// etcd's clients go on by themselves after these two, and after no other.
	isUsual := said.Code() == codes.Unavailable || said.Code() == codes.Internal
	if !isUsual || *survive && said.Message() != "etcdserver: no leader" {
		stream.client.report.Violation("stream ended", "%v: %s", said.Code(), said.Message())
	}
}

func (stream *Stream) fail(kind, format string, values ...interface{}) {
	where := fmt.Sprintf("stream %d.%d: ", stream.client.number, stream.index)
	stream.client.report.Violation(kind, "%s", where+fmt.Sprintf(format, values...))
}

// take a response. The lock is held.
func (stream *Stream) take(response *pb.WatchResponse) {
	if response.Created {
		stream.created(response)
		return
	}
	if response.WatchId == -1 && !response.Canceled && len(response.Events) == 0 {
		count(&counts.Progress, 1)
		stream.progress(response.Header.Revision)
		return
	}
	watcher := stream.byID[response.WatchId]
	if watcher == nil && response.Canceled && stream.left[response.WatchId] {
		// By compaction and because it was asked for; or by compaction again, as etcd does while it brings more watches
		// up to date than it takes at a time.
		stream.client.report.Tolerate("cancelled twice")
		return
	}
	if watcher == nil {
		stream.fail("unknown id", "%d, %d events, canceled %v", response.WatchId, len(response.Events), response.Canceled)
		return
	}
	if response.Canceled {
		if len(response.Events) > 0 {
			stream.fail("after the end", "%d events with the cancellation", len(response.Events))
		}
		delete(stream.byID, response.WatchId)
		if goesOn := watcher.check.Canceled(response, watcher.isLeaving); goesOn && !watcher.isLeaving {
			count(&counts.Compacted, 1)
			stream.left[response.WatchId] = true
			stream.create(watcher)
		} else {
			stream.left[response.WatchId] = watcher.isLeaving
			stream.remove(watcher)
		}
		return
	}
	count(&counts.Deliveries, int64(len(response.Events)))
	if response.Fragment {
		count(&counts.Fragments, 1)
	}
	if len(response.Events) == 0 {
		count(&counts.Notified, 1)
	}
	watcher.check.Deliver(response)
}

// progress answers a question, but which is not said: etcd does not answer every one. It says nothing of a watch that
// was made after the question, whose created may still come before the answer.
func (stream *Stream) progress(revision int64) {
	for len(stream.asked) > 1 && time.Since(stream.asked[0]) > oldestQuestion {
		stream.asked = stream.asked[1:]
	}
	if len(stream.asked) == 0 {
		stream.fail("unasked progress", "revision %d", revision)
		return
	}
	for _, watcher := range stream.byID {
		if watcher.bound.Before(stream.asked[0]) {
			watcher.check.Progress(revision)
		}
	}
	stream.asked = stream.asked[1:]
}

func (stream *Stream) created(response *pb.WatchResponse) {
	if len(stream.waiting) == 0 {
		stream.fail("created twice", "nobody asked for %v", response)
		return
	}
	watcher := stream.waiting[0]
	stream.waiting = stream.waiting[1:]
	count(&counts.Created, 1)
	if watcher.id != 0 && response.WatchId != watcher.id {
		stream.fail("id", "%d instead of %d", response.WatchId, watcher.id)
	}
	watcher.id = response.WatchId
	if stream.byID[watcher.id] != nil {
		stream.fail("id", "%d is in use", watcher.id)
	}
	if watcher.check.Created(response) {
		stream.byID[watcher.id] = watcher
		watcher.isBound, watcher.bound = true, time.Now()
	} else {
		stream.remove(watcher)
	}
}

func (stream *Stream) remove(gone *Watching) {
	for index, watcher := range stream.watchers {
		if watcher == gone {
			stream.watchers = append(stream.watchers[:index], stream.watchers[index+1:]...)
			return
		}
	}
}

func (stream *Stream) isDone() bool {
	stream.mutex.Lock()
	defer stream.mutex.Unlock()
	for _, watcher := range stream.watchers {
		if !watcher.isLeaving && !watcher.check.IsDone() {
			return false
		}
	}
	return true
}
