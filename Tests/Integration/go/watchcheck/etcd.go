package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"./check"
)

const prefix = "k/"

// key number n of the group g.
func key(group, number int) string { return fmt.Sprintf("%s%02d/%02d", prefix, group, number) }

const groups, keysOfGroup = 20, 10

// Etcd is the cluster itself, asked directly.
type Etcd struct {
	addresses []string
	client    *clientv3.Client
}

func newEtcd(addresses []string) *Etcd {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: addresses, DialTimeout: 10 * time.Second, DialKeepAliveTime: 2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
	})
	must(err)
	return &Etcd{addresses, client}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// put until it has worked; it may have worked before. Gives the revision.
func (etcd *Etcd) put(key, value string) int64 {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		answer, err := etcd.client.Put(ctx, key, value)
		cancel()
		if err == nil {
			return answer.Header.Revision
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// fence writes to every key, so that nobody has nothing to wait for.
func (etcd *Etcd) fence() (last int64) {
	for group := 0; group < groups; group++ {
		for number := 0; number < keysOfGroup; number++ {
			last = etcd.put(key(group, number), "the end")
		}
	}
	return last
}

// Truth is one watch on everything, at etcd itself.
type Truth struct {
	etcd    *Etcd
	log     *check.Log
	report  *check.Report
	next    int64
	resumed int64
	parts   *pb.WatchResponse
}

func startTruth(etcd *Etcd, log *check.Log, report *check.Report) *Truth {
	var answer *clientv3.DeleteResponse
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		var err error
		answer, err = etcd.client.Delete(ctx, "\x00", clientv3.WithFromKey())
		cancel()
		if err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	truth := &Truth{etcd: etcd, log: log, report: report, next: answer.Header.Revision + 1}
	// What was before is for nobody.
	first := etcd.put("first", "")
	log.Compacting(first)
	etcd.client.Compact(context.Background(), first)
	go truth.run()
	return truth
}

func (truth *Truth) run() {
	for turn := 0; ; turn++ {
		truth.follow(truth.etcd.addresses[turn%len(truth.etcd.addresses)])
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
	truth.log.Append(response.Events)
	truth.next = truth.log.Complete() + 1
}

func (truth *Truth) waitFor(revision int64) {
	for began := time.Now(); truth.log.Complete() < revision; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			truth.report.Violation("truth", "is at %d instead of %d", truth.log.Complete(), revision)
			return
		}
	}
}
