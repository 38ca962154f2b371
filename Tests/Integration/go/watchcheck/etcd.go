package main

import (
	"context"
	"fmt"
	"math/rand"
	"strings"
	"sync"
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
	log.Compacting(0)
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
			truth.report.Fail("truth", fmt.Sprintf("cancelled: %v", response))
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
		truth.report.Fail("truth", fmt.Sprintf("%d came again, wanted %d", first, truth.next))
		return
	}
	truth.log.Append(response.Events)
	truth.next = truth.log.Complete() + 1
}

func (truth *Truth) waitFor(revision int64) {
	for began := time.Now(); truth.log.Complete() < revision; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			truth.report.Fail("truth", fmt.Sprintf("is at %d instead of %d", truth.log.Complete(), revision))
			return
		}
	}
}

// Writers change keys in all ways there are.
type Writers struct {
	etcd  *Etcd
	log   *check.Log
	over  chan struct{}
	group sync.WaitGroup
	mutex sync.Mutex
	acked []int64
	seq   int64
	turn  chan struct{}
}

func startWriters(etcd *Etcd, log *check.Log) *Writers {
	made := &Writers{etcd: etcd, log: log, over: make(chan struct{}), turn: make(chan struct{})}
	for number := 0; number < *writers; number++ {
		made.group.Add(1)
		go made.run(chance(1_000_000 + number))
	}
	go made.pace()
	if *compaction > 0 {
		go made.compact(chance(2_000_000))
	}
	return made
}

// pace lets writers have their turns.
func (made *Writers) pace() {
	start, given := time.Now(), 0
	for {
		if *rate > 0 {
			if due := start.Add(time.Duration(given) * time.Second / time.Duration(*rate)); time.Until(due) > 0 {
				time.Sleep(time.Until(due))
			} else if time.Since(due) > time.Second {
				// What could not be written while there was no leader is not made up for.
				start, given = time.Now(), 0
			}
		}
		select {
		case <-made.over:
			return
		case made.turn <- struct{}{}:
			given++
		}
	}
}

func (made *Writers) run(random *rand.Rand) {
	defer made.group.Done()
	for {
		select {
		case <-made.over:
			return
		case <-made.turn:
			made.write(random)
		}
	}
}

func (made *Writers) value(random *rand.Rand) string {
	size := random.Intn(300)
	if random.Intn(200) == 0 {
		size = random.Intn(20_000)
	}
	return fmt.Sprintf("%d %s", atomic.AddInt64(&made.seq, 1), strings.Repeat("x", size))
}

func (made *Writers) operations(random *rand.Rand) []clientv3.Op {
	group := random.Intn(groups)
	one := key(group, random.Intn(keysOfGroup))
	switch choice := random.Intn(1000); {
	case choice < 700:
		return []clientv3.Op{clientv3.OpPut(one, made.value(random))}
	case choice < 800:
		return []clientv3.Op{clientv3.OpDelete(one)}
	case choice < 830:
		return []clientv3.Op{clientv3.OpDelete(key(group, 0), clientv3.WithRange(key(group+1, 0)))}
	case choice < 850:
		// Keys that end with their lease, all in one revision.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		lease, err := made.etcd.client.Grant(ctx, 1+random.Int63n(3))
		if err != nil {
			return nil
		}
		var ops []clientv3.Op
		for number := 0; number < 4; number++ {
			ops = append(ops, clientv3.OpPut(key(group, number), made.value(random), clientv3.WithLease(lease.ID)))
		}
		return ops
	case choice < 852 && *large:
		var ops []clientv3.Op
		for number := 0; number < 5; number++ {
			value := fmt.Sprintf("%d %s", atomic.AddInt64(&made.seq, 1), strings.Repeat("l", 280_000))
			ops = append(ops, clientv3.OpPut(key(group, number), value))
		}
		return ops
	}
	var ops []clientv3.Op
	seen := map[string]bool{}
	for number := 2 + random.Intn(18); number > 0; number-- {
		other := key((group+random.Intn(3))%groups, random.Intn(keysOfGroup))
		if seen[other] {
			continue
		}
		seen[other] = true
		if random.Intn(4) == 0 {
			ops = append(ops, clientv3.OpDelete(other))
		} else {
			ops = append(ops, clientv3.OpPut(other, made.value(random)))
		}
	}
	return ops
}

func (made *Writers) write(random *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	answer, err := made.etcd.client.Txn(ctx).Then(made.operations(random)...).Commit()
	if err != nil {
		return
	}
	for _, one := range answer.Responses {
		if one.GetResponsePut() != nil || one.GetResponseDeleteRange().GetDeleted() > 0 {
			made.mutex.Lock()
			made.acked = append(made.acked, answer.Header.Revision)
			made.mutex.Unlock()
			count(&counts.Acknowledged, 1)
			return
		}
	}
}

// compact removes what is older than some moment, more or less far back.
func (made *Writers) compact(random *rand.Rand) {
	for pause(random, *compaction, made.over) {
		revision := made.log.Complete() - 200 - random.Int63n(3000)
		if revision <= made.log.Floor() {
			continue
		}
		made.log.Compacting(revision)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		made.etcd.client.Compact(ctx, revision)
		cancel()
	}
}

func (made *Writers) stop() {
	close(made.over)
	made.group.Wait()
}

// verify checks the truth itself: whatever etcd has confirmed is in the log.
func (made *Writers) verify(report *check.Report) {
	for _, revision := range made.acked {
		if !made.log.Has(revision) {
			report.Fail("truth", fmt.Sprintf("%d was confirmed and is not in the log", revision))
		}
	}
}
