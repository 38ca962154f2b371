// Package etcd talks to the cluster directly, not through what is tested.
package etcd

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"go.etcd.io/etcd/mvcc/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"../check"
)

// Etcd is the cluster itself, asked directly.
type Etcd struct {
	Addresses []string
	Client    *clientv3.Client
	user      []string
}

// New connects to the members.
func New(addresses []string) *Etcd { return NewAs(addresses, "") }

// NewAs connects as a user, name:password.
func NewAs(addresses []string, user string) *Etcd {
	parts := append(strings.SplitN(user, ":", 2), "")
	client, err := clientv3.New(clientv3.Config{
		Endpoints: addresses, DialTimeout: 10 * time.Second, DialKeepAliveTime: 2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second, Username: parts[0], Password: parts[1],
	})
	if err != nil {
		panic(err)
	}
	return &Etcd{addresses, client, parts}
}

// Put until it has worked; it may have worked before. Gives the revision.
func (etcd *Etcd) Put(key, value string) int64 {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		answer, err := etcd.Client.Put(ctx, key, value)
		cancel()
		if err == nil {
			return answer.Header.Revision
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Truth is one watch on everything, at etcd itself.
type Truth struct {
	etcd    *Etcd
	log     *check.Log
	report  *check.Report
	arrived func(events []*mvccpb.Event)
	next    int64
	resumed int64
	parts   *pb.WatchResponse
}

// Follow empties the store, then puts everything that is written into the log. If there is an `arrived` it is called
// for whole revisions before the log has them.
func Follow(etcd *Etcd, log *check.Log, report *check.Report, arrived func(events []*mvccpb.Event)) *Truth {
	var answer *clientv3.DeleteResponse
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		var err error
		answer, err = etcd.Client.Delete(ctx, "\x00", clientv3.WithFromKey())
		cancel()
		if err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	truth := &Truth{etcd: etcd, log: log, report: report, arrived: arrived, next: answer.Header.Revision + 1}
	// What was before is for nobody.
	first := etcd.Put("first", "")
	log.Compacting(first)
	etcd.Client.Compact(context.Background(), first)
	go truth.run()
	return truth
}

func (truth *Truth) run() {
	for turn := 0; ; turn++ {
		truth.follow(truth.etcd.Addresses[turn%len(truth.etcd.Addresses)])
		atomic.AddInt64(&truth.resumed, 1)
		truth.parts = nil
		time.Sleep(50 * time.Millisecond)
	}
}

// follow watches at one member until it fails or is silent for too long.
func (truth *Truth) follow(address string) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "hasleader", "true"))
	defer cancel()
	connection, err := grpc.Dial(address, grpc.WithInsecure(), grpc.WithInitialWindowSize(8<<20),
		grpc.WithInitialConnWindowSize(8<<20), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return
	}
	defer connection.Close()
	if truth.etcd.user[0] != "" {
		answer, err := pb.NewAuthClient(connection).Authenticate(
			ctx, &pb.AuthenticateRequest{Name: truth.etcd.user[0], Password: truth.etcd.user[1]})
		if err != nil {
			return
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "token", answer.Token)
	}
	stream, err := pb.NewWatchClient(connection).Watch(ctx)
	if err != nil {
		return
	}
	watchdog := time.AfterFunc(3*time.Second, cancel)
	defer watchdog.Stop()
	create := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: truth.next, Fragment: true}
	if stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}) != nil {
		return
	}
	go func() {
		// Where nothing is written, something has to come now and then.
		for ctx.Err() == nil {
			time.Sleep(time.Second)
			ask := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
				ProgressRequest: &pb.WatchProgressRequest{}}}
			if stream.Send(ask) != nil {
				return
			}
		}
	}()
	for {
		response, err := stream.Recv()
		if err != nil {
			return
		}
		watchdog.Reset(3 * time.Second)
		if response.Canceled {
			truth.report.Violation("truth", "cancelled: %v", response)
			return
		}
		truth.take(response)
	}
}

func (truth *Truth) take(response *pb.WatchResponse) {
	if truth.parts != nil {
		truth.parts.Events = append(truth.parts.Events, response.Events...)
		truth.parts.Fragment = response.Fragment
		response = truth.parts
	}
	truth.parts = nil
	if response.Fragment {
		truth.parts = response
		return
	}
	if len(response.Events) == 0 {
		return
	}
	if first := response.Events[0].Kv.ModRevision; first < truth.next {
		truth.report.Violation("truth", "%d came again, wanted %d", first, truth.next)
		return
	}
	if truth.arrived != nil {
		truth.arrived(response.Events)
	}
	truth.log.Append(response.Events)
	truth.next = truth.log.Complete() + 1
}

// Resumed is how often the watch was made anew.
func (truth *Truth) Resumed() int64 { return atomic.LoadInt64(&truth.resumed) }

// WaitFor waits until the log has a revision.
func (truth *Truth) WaitFor(revision int64) {
	for began := time.Now(); truth.log.Complete() < revision; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			truth.report.Violation("truth", "is at %d instead of %d", truth.log.Complete(), revision)
			return
		}
	}
}
