package main

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"./check"
)

// Clients are all connections.
type Clients struct {
	all    []*Client
	isCalm chan struct{}
	over   chan struct{}
	storms chan struct{}
}

func startClients(addresses []string, log *check.Log, report *check.Report) *Clients {
	made := &Clients{isCalm: make(chan struct{}), over: make(chan struct{})}
	pool := pool(chance(3_000_000))
	for number := 0; number < *connections; number++ {
		client := &Client{
			clients: made, number: number, addresses: addresses, log: log, report: report, pool: pool,
			random: chance(number), storm: make(chan time.Duration, 1),
		}
		made.all = append(made.all, client)
		for index := 0; index < *streams; index++ {
			client.streams = append(client.streams, newStream(client, index))
		}
		go client.run()
	}
	if *storm > 0 {
		go made.breakAll(chance(4_000_000))
	}
	return made
}

// breakAll lets all connections, or half of them, break in the same moment.
func (made *Clients) breakAll(random *rand.Rand) {
	for pause(random, *storm, made.isCalm) {
		isHalf, gone := random.Intn(2) == 0, time.Duration(random.Intn(300))*time.Millisecond
		for index, client := range made.all {
			if !isHalf || index%2 == 0 {
				select {
				case client.storm <- gone:
				default:
				}
			}
		}
	}
}

// calm ends what clients do by themselves; they go on listening.
func (made *Clients) calm() { close(made.isCalm) }

// finish waits until everybody has been told everything, then looks for what never came.
func (made *Clients) finish(patience time.Duration) {
	deadline := time.Now().Add(patience)
	for _, client := range made.all {
		for _, stream := range client.streams {
			for !stream.isDone() && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	for _, client := range made.all {
		for _, stream := range client.streams {
			atomic.StoreInt32(&stream.isOwn, 1)
			stream.mutex.Lock()
			for _, watcher := range stream.watchers {
				if !watcher.isLeaving {
					watcher.check.Lacks()
				}
			}
			stream.mutex.Unlock()
		}
	}
	close(made.over)
}

// pool makes the ranges that are watched; the first are the most popular.
func pool(random *rand.Rand) (made []check.Spec) {
	for len(made) < *ranges {
		group := random.Intn(groups)
		one := key(group, random.Intn(keysOfGroup))
		switch choice := random.Intn(100); {
		case choice < 40:
			made = append(made, check.Spec{Key: one})
		case choice < 70:
			made = append(made, check.Spec{Key: key(group, 0)[:5], End: key(group, 0)[:4] + "0"})
		case choice < 90:
			other := key(group+random.Intn(3), random.Intn(keysOfGroup))
			if one < other {
				made = append(made, check.Spec{Key: one, End: other})
			}
		case choice < 94:
			made = append(made, check.Spec{Key: key(groups-1-random.Intn(3), 0), End: "\x00"})
		case choice < 97:
			made = append(made, check.Spec{Key: prefix, End: "k0"})
		case choice < 98:
			made = append(made, check.Spec{Key: "\x00", End: "\x00"})
		default:
			made = append(made, check.Spec{Key: "nothing/", End: "nothing0"})
		}
	}
	return made
}

// Client is one connection with its streams.
type Client struct {
	clients    *Clients
	number     int
	addresses  []string
	log        *check.Log
	report     *check.Report
	pool       []check.Spec
	random     *rand.Rand
	connection *grpc.ClientConn
	streams    []*Stream
	storm      chan time.Duration
	dialled    int
}

func (client *Client) dial() {
	address := client.addresses[(client.number+client.dialled)%len(client.addresses)]
	client.dialled++
	window := int32(64<<10) << client.random.Intn(5)
	connection, err := grpc.Dial(address, grpc.WithInsecure(),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(2*window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	must(err)
	client.connection = connection
}

// run opens what has ended, and does this and that.
func (client *Client) run() {
	client.dial()
	calm := client.clients.isCalm
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	next := time.Now()
	for {
		for _, stream := range client.streams {
			stream.open()
		}
		select {
		case <-client.clients.over:
			client.connection.Close()
			return
		case gone := <-client.storm:
			client.reconnect(gone)
		case <-every.C:
			select {
			case <-calm:
			default:
				if *pace > 0 && time.Now().After(next) {
					client.act()
					next = time.Now().Add(time.Duration(client.random.Int63n(int64(2 * *pace))))
				}
			}
		}
	}
}

func (client *Client) act() {
	stream := client.streams[client.random.Intn(len(client.streams))]
	switch choice := client.random.Intn(100); {
	case choice < 40 && *requested:
		stream.ask()
	case choice < 65:
		stream.replace()
	case choice < 80:
		stream.stall(time.Duration(client.random.Intn(1500)) * time.Millisecond)
	case choice < 92:
		stream.breakOff()
	case choice < 96:
		client.reconnect(0)
	}
}

func (client *Client) reconnect(gone time.Duration) {
	for _, stream := range client.streams {
		stream.breakOff()
	}
	client.connection.Close()
	time.Sleep(gone)
	client.dial()
}

// spec of a watch to be made.
func (client *Client) spec(random *rand.Rand) check.Spec {
	spec := client.pool[int(float64(len(client.pool))*random.Float64()*random.Float64())]
	spec.NoPut = random.Intn(10) == 0
	spec.NoDelete = random.Intn(8) == 0
	spec.Previous = random.Intn(4) == 0
	spec.Notify = random.Intn(3) == 0
	spec.InParts = random.Intn(3) == 0
	newest, floor := client.log.Complete(), client.log.Floor()
	switch choice := random.Intn(100); {
	case choice < 50 || newest == 0:
	case choice < 75:
		spec.Start = newest - random.Int63n(200)
	case choice < 85 && newest > floor:
		spec.Start = floor + random.Int63n(newest-floor)
	case choice < 88 && floor > 1:
		spec.Start = 1 + random.Int63n(floor)
	default:
		spec.Start = newest + random.Int63n(300)
	}
	if spec.Start < 0 {
		spec.Start = 0
	}
	return spec
}

// Watching is a watch on a stream.
type Watching struct {
	check     *check.Watcher
	id        int64 // that it has, or was asked for
	isLeaving bool
	isBound   bool
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
	byID     map[int64]*Watching
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
	stream.byID, stream.waiting = map[int64]*Watching{}, nil
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
	// etcd's clients go on by themselves after Unavailable only.
	if *survive || said.Code().String() != "Unavailable" {
		stream.client.report.Fail("stream ended", said.Code().String()+": "+said.Message())
	}
}

func (stream *Stream) fail(kind, format string, values ...interface{}) {
	where := fmt.Sprintf("stream %d.%d: ", stream.client.number, stream.index)
	stream.client.report.Fail(kind, where+fmt.Sprintf(format, values...))
}

// take a response. The lock is held.
func (stream *Stream) take(response *pb.WatchResponse) {
	if response.Created {
		stream.created(response)
		return
	}
	if response.WatchId == -1 && !response.Canceled && len(response.Events) == 0 {
		count(&counts.Progress, 1)
		for _, watcher := range stream.byID {
			watcher.check.Progress(response.Header.Revision)
		}
		return
	}
	watcher := stream.byID[response.WatchId]
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
			stream.create(watcher)
		} else {
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
		watcher.isBound = true
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
