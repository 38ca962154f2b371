package main

import (
	"context"
	"fmt"
	"math/rand"
	"strings"
	"time"

	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"../check"
	"../linear"
)

const groups, keysOfGroup, registers = 4, 5, 6

func key(group, number int) string { return fmt.Sprintf("c/%d/%d", group, number) }

// spans are the ranges that are read; the first are the most popular.
var spans = []check.Spec{
	{Key: "c/0/0"}, {Key: "c/0/", End: "c/00"}, {Key: "c/0/1"}, {Key: "c/1/", End: "c/10"}, {Key: "c/", End: "c0"},
	{Key: "c/1/2"}, {Key: "c/2/2", End: "\x00"}, {Key: "c/2/1", End: "c/3/2"}, {Key: "c/3/3"}, {Key: "c/none"},
	{Key: "\x00", End: "\x00"},
}

// Read is a read that was answered.
type Read struct {
	span           int
	isSerializable bool
	at             int64 // the revision asked for
	header         int64
	state          uint64
	count          int
	start, end     time.Duration
	own            int64 // what this connection had written or seen before
}

// Client is one connection. It does one thing after the other.
type Client struct {
	name     string
	random   *rand.Rand
	log      *check.Log
	report   *check.Report
	kv       pb.KVClient
	lease    pb.LeaseClient
	ctx      context.Context
	stranger context.Context
	written  int64 // newest revision of its own
	reads    []Read
	register map[string][]linear.Operation
	counts   map[string]int
	number   int
}

func newClient(name, address string, random *rand.Rand, log *check.Log, report *check.Report) *Client {
	connection, err := grpc.Dial(address, grpc.WithInsecure(), grpc.WithBlock(), grpc.WithTimeout(10*time.Second))
	if err != nil {
		panic(err)
	}
	made := &Client{
		name: name, random: random, log: log, report: report, kv: pb.NewKVClient(connection),
		lease: pb.NewLeaseClient(connection), register: map[string][]linear.Operation{}, counts: map[string]int{},
	}
	made.ctx, made.stranger = as(connection, *user), nil
	if *stranger != "" {
		made.stranger = as(connection, *stranger)
	}
	return made
}

// as is the context of a user's calls.
func as(connection *grpc.ClientConn, user string) context.Context {
	if user == "" {
		return context.Background()
	}
	parts := strings.SplitN(user, ":", 2)
	answer, err := pb.NewAuthClient(connection).Authenticate(
		context.Background(), &pb.AuthenticateRequest{Name: parts[0], Password: parts[1]})
	if err != nil {
		panic(err)
	}
	return metadata.AppendToOutgoingContext(context.Background(), "token", answer.Token)
}

func (client *Client) run(over chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(client.random.Int63n(int64(2 * *pace)))):
		}
		ctx, cancel := context.WithTimeout(client.ctx, 3*time.Second)
		client.act(ctx)
		cancel()
	}
}

func (client *Client) act(ctx context.Context) {
	random := client.random
	one := key(random.Intn(groups), random.Intn(keysOfGroup))
	switch choice := random.Intn(100); {
	case choice < 40:
		client.read(ctx, true, 0)
	case choice < 60:
		client.read(ctx, false, 0)
	case choice < 64:
		// The past does not change.
		if at := client.log.Complete() - random.Int63n(50); at >= client.log.Floor() {
			client.read(ctx, random.Intn(2) == 0, at)
		}
	case choice < 67 && client.stranger != nil:
		client.peep()
	case choice < 75:
		client.write(ctx, "put", put(one, client.value(), 0))
	case choice < 78:
		client.write(ctx, "delete", deletion(one, ""))
	case choice < 79:
		group := random.Intn(groups)
		client.write(ctx, "delete range", deletion(key(group, 0), key(group, 3)))
	case choice < 82:
		group := random.Intn(groups)
		client.write(ctx, "txn", put(key(group, 0), client.value(), 0), put(key(group, 1), client.value(), 0),
			deletion(key(group, 2), ""))
	case choice < 84:
		client.leased(ctx, one)
	case choice < 92:
		client.readRegister(ctx)
	default:
		client.writeRegister(ctx)
	}
}

func (client *Client) value() string {
	client.number++
	return fmt.Sprintf("%s, %d", client.name, client.number)
}

func put(key, value string, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{
		Key: []byte(key), Value: []byte(value), Lease: lease}}}
}

func deletion(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{
		Key: []byte(key), RangeEnd: []byte(end)}}}
}

func (client *Client) read(ctx context.Context, isSerializable bool, at int64) {
	span := int(float64(len(spans)) * client.random.Float64() * client.random.Float64())
	read := Read{span: span, isSerializable: isSerializable, at: at, own: client.written, start: now()}
	answer, err := client.kv.Range(ctx, &pb.RangeRequest{
		Key: []byte(spans[span].Key), RangeEnd: []byte(spans[span].End), Serializable: isSerializable, Revision: at})
	read.end = now()
	if err != nil {
		client.failed("read", err)
		return
	}
	kind := map[bool]string{true: "serializable read", false: "read"}[isSerializable]
	if at > 0 {
		kind = "read of the past"
	}
	client.counts[kind]++
	read.header, read.count = answer.Header.GetRevision(), len(answer.Kvs)
	if answer.Count != int64(len(answer.Kvs)) || answer.More {
		client.report.Violation("content", "%s: count %d with %d keys", client.name, answer.Count, len(answer.Kvs))
	}
	last := ""
	for _, kv := range answer.Kvs {
		read.state ^= check.Hash(kv)
		if string(kv.Key) <= last {
			client.report.Violation("content", "%s: %q after %q", client.name, kv.Key, last)
		}
		last = string(kv.Key)
		known.of(kv.ModRevision)
	}
	client.reads = append(client.reads, read)
}

// peep asks what others read all the time, as somebody who may not.
func (client *Client) peep() {
	span := spans[client.random.Intn(5)]
	ctx, cancel := context.WithTimeout(client.stranger, 3*time.Second)
	defer cancel()
	answer, err := client.kv.Range(ctx, &pb.RangeRequest{
		Key: []byte(span.Key), RangeEnd: []byte(span.End), Serializable: client.random.Intn(2) == 0})
	client.counts["by a stranger"]++
	if err == nil {
		client.report.Violation("leak", "%s: a stranger got %d keys of %q", client.name, len(answer.Kvs), span.Key)
	} else if code := status.Code(err); code != codes.PermissionDenied {
		client.failed("by a stranger", err)
	}
}

func (client *Client) write(ctx context.Context, kind string, operations ...*pb.RequestOp) {
	answer, err := client.kv.Txn(ctx, &pb.TxnRequest{Success: operations})
	if err != nil {
		client.failed(kind, err)
		return
	}
	client.counts[kind]++
	for _, one := range answer.Responses {
		if one.GetResponsePut() != nil || one.GetResponseDeleteRange().GetDeleted() > 0 {
			client.wrote(answer.Header.Revision)
		}
	}
}

func (client *Client) wrote(revision int64) {
	known.of(revision)
	client.written = revision
}

// leased writes what goes away by itself, or by the end of its lease.
func (client *Client) leased(ctx context.Context, key string) {
	granted, err := client.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 1})
	if err != nil {
		client.failed("grant", err)
		return
	}
	client.write(ctx, "put with a lease", put(key, client.value(), granted.ID))
	if client.random.Intn(2) == 0 {
		if _, err := client.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: granted.ID}); err != nil {
			client.failed("revoke", err)
		} else {
			client.counts["revoke"]++
		}
	}
}

func (client *Client) readRegister(ctx context.Context) {
	key := fmt.Sprintf("r/%d", client.random.Intn(registers))
	call := now()
	answer, err := client.kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		client.failed("read of a register", err)
		return
	}
	client.counts["read of a register"]++
	value := ""
	if len(answer.Kvs) > 0 {
		value = string(answer.Kvs[0].Value)
	}
	client.register[key] = append(client.register[key], linear.Operation{
		Value: value, Call: int64(call), Answer: int64(now())})
}

func (client *Client) writeRegister(ctx context.Context) {
	key := fmt.Sprintf("r/%d", client.random.Intn(registers))
	one := linear.Operation{IsWrite: true, Call: int64(now()), Answer: linear.Never}
	var err error
	if client.random.Intn(4) > 0 {
		one.Value = client.value()
		_, err = client.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(one.Value)})
	} else {
		_, err = client.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(key)})
	}
	if err != nil {
		// It may have happened, or may yet.
		client.failed("write of a register", err)
	} else {
		client.counts["write of a register"]++
		one.Answer = int64(now())
	}
	client.register[key] = append(client.register[key], one)
}

// failed tells apart what may happen while a cluster is ill and what must not.
func (client *Client) failed(what string, err error) {
	switch code := status.Code(err); code {
	case codes.Unavailable, codes.DeadlineExceeded:
		client.counts["failed: "+code.String()]++
	case codes.NotFound:
		// A lease that was faster.
		client.counts["failed: "+code.String()]++
	default:
		client.report.Violation("error", "%s: %s: %v", client.name, what, err)
	}
}
