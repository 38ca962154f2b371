// A client on etcd's own Go library: what programs do with etcd, through the address given. Prints a line for each thing
// done and ends with status 1 at the first that goes wrong.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
)

var (
	endpoints = flag.String("endpoints", "", "comma separated addresses")
	members   = flag.String("members", "", "what Sync must find, comma separated")
	ctx       context.Context
)

func main() {
	flag.Parse()
	var cancel context.CancelFunc
	ctx, cancel = context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(*endpoints, ","), DialTimeout: 10 * time.Second,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
	})
	check(err)
	defer client.Close()
	for _, step := range []struct {
		name string
		do   func(*clientv3.Client)
	}{
		{"put, get, delete", keys}, {"errors", errors}, {"txn", txn}, {"watch", watch}, {"watch from before", history},
		{"lease", lease}, {"lock", lock}, {"election", election}, {"stm", stm}, {"large", large}, {"sync", sync},
	} {
		step.do(client)
		fmt.Println(step.name)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		panic(err)
	}
}

func expect(isTrue bool, what string, values ...interface{}) {
	if !isTrue {
		check(fmt.Errorf(what, values...))
	}
}

func keys(client *clientv3.Client) {
	for number := 0; number < 100; number++ {
		_, err := client.Put(ctx, fmt.Sprintf("go/%03d", number), fmt.Sprint(number))
		check(err)
	}
	found, err := client.Get(ctx, "go/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	check(err)
	expect(found.Count == 100 && string(found.Kvs[0].Value) == "99", "got %v", found.Count)
	page, err := client.Get(ctx, "go/", clientv3.WithPrefix(), clientv3.WithLimit(7), clientv3.WithSerializable())
	check(err)
	expect(len(page.Kvs) == 7 && page.More, "a page of %v", len(page.Kvs))
	gone, err := client.Delete(ctx, "go/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	check(err)
	expect(gone.Deleted == 100 && len(gone.PrevKvs) == 100, "deleted %v", gone.Deleted)
}

func errors(client *clientv3.Client) {
	_, err := client.Put(ctx, "", "x")
	expect(err == rpctypes.ErrEmptyKey, "empty key: %v", err)
	_, err = client.Get(ctx, "x", clientv3.WithRev(1<<60))
	expect(err == rpctypes.ErrFutureRev, "future revision: %v", err)
	_, err = client.Put(ctx, "x", "y", clientv3.WithLease(12345))
	expect(err == rpctypes.ErrLeaseNotFound, "no lease: %v", err)
}

func txn(client *clientv3.Client) {
	answer, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Version("go/txn"), "=", 0)).
		Then(clientv3.OpPut("go/txn", "1"), clientv3.OpGet("go/txn")).Else(clientv3.OpGet("go/txn")).Commit()
	check(err)
	expect(answer.Succeeded && len(answer.Responses) == 2, "txn: %v", answer)
	_, err = client.Delete(ctx, "go/txn")
	check(err)
}

func watch(client *clientv3.Client) {
	inner, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	var channels []clientv3.WatchChan
	for number := 0; number < 20; number++ {
		channels = append(channels, client.Watch(inner, "go/watch", clientv3.WithPrefix(), clientv3.WithCreatedNotify()))
	}
	for _, channel := range channels {
		first := <-channel
		expect(first.Created, "no created: %v", first)
	}
	for number := 0; number < 50; number++ {
		_, err := client.Put(ctx, "go/watch", fmt.Sprint(number))
		check(err)
	}
	for _, channel := range channels {
		for seen := 0; seen < 50; {
			answer := <-channel
			check(answer.Err())
			for _, event := range answer.Events {
				expect(string(event.Kv.Value) == fmt.Sprint(seen), "event %s for %d", event.Kv.Value, seen)
				seen++
			}
		}
	}
}

func history(client *clientv3.Client) {
	first, err := client.Put(ctx, "go/history", "0")
	check(err)
	for number := 1; number < 200; number++ {
		_, err := client.Put(ctx, "go/history", fmt.Sprint(number))
		check(err)
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	channel := client.Watch(inner, "go/history", clientv3.WithRev(first.Header.Revision), clientv3.WithPrevKV())
	for seen := 0; seen < 200; {
		answer := <-channel
		check(answer.Err())
		for _, event := range answer.Events {
			expect(string(event.Kv.Value) == fmt.Sprint(seen), "event %s for %d", event.Kv.Value, seen)
			expect(seen == 0 || string(event.PrevKv.Value) == fmt.Sprint(seen-1), "before %d: %v", seen, event.PrevKv)
			seen++
		}
	}
}

func lease(client *clientv3.Client) {
	granted, err := client.Grant(ctx, 2)
	check(err)
	_, err = client.Put(ctx, "go/lease", "x", clientv3.WithLease(granted.ID))
	check(err)
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	beats, err := client.KeepAlive(inner, granted.ID)
	check(err)
	// Longer than the lease would live by itself.
	for beat := 0; beat < 5; beat++ {
		answer, ok := <-beats
		expect(ok && answer.TTL == 2, "beat %d: %v", beat, answer)
	}
	left, err := client.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	check(err)
	expect(left.GrantedTTL == 2 && bytes.Equal(left.Keys[0], []byte("go/lease")), "left: %v", left)
	_, err = client.Revoke(ctx, granted.ID)
	check(err)
	for range beats {
	}
	found, err := client.Get(ctx, "go/lease")
	check(err)
	expect(found.Count == 0, "the key has outlived its lease")
}

func lock(client *clientv3.Client) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(5))
	check(err)
	defer session.Close()
	mine := concurrency.NewMutex(session, "go/lock")
	check(mine.Lock(ctx))
	other, err := concurrency.NewSession(client, concurrency.WithTTL(5))
	check(err)
	defer other.Close()
	entered := make(chan error, 1)
	theirs := concurrency.NewMutex(other, "go/lock")
	go func() { entered <- theirs.Lock(ctx) }()
	select {
	case err := <-entered:
		check(fmt.Errorf("two in the lock: %v", err))
	case <-time.After(200 * time.Millisecond):
	}
	check(mine.Unlock(ctx))
	check(<-entered)
	check(theirs.Unlock(ctx))
}

func election(client *clientv3.Client) {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(5))
	check(err)
	defer session.Close()
	mine := concurrency.NewElection(session, "go/election")
	check(mine.Campaign(ctx, "me"))
	leader, err := mine.Leader(ctx)
	check(err)
	expect(string(leader.Kvs[0].Value) == "me", "leader: %v", leader)
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := <-mine.Observe(inner)
	expect(string(seen.Kvs[0].Value) == "me", "observed: %v", seen)
	check(mine.Resign(ctx))
}

func stm(client *clientv3.Client) {
	_, err := client.Put(ctx, "go/stm", "0")
	check(err)
	done := make(chan error)
	for worker := 0; worker < 5; worker++ {
		go func() {
			_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
				number := 0
				fmt.Sscan(stm.Get("go/stm"), &number)
				stm.Put("go/stm", fmt.Sprint(number+1))
				return nil
			})
			done <- err
		}()
	}
	for worker := 0; worker < 5; worker++ {
		check(<-done)
	}
	found, err := client.Get(ctx, "go/stm")
	check(err)
	expect(string(found.Kvs[0].Value) == "5", "counted %s", found.Kvs[0].Value)
}

func large(client *clientv3.Client) {
	value := strings.Repeat("0123456789abcdef", 80_000)
	_, err := client.Put(ctx, "go/large", value)
	check(err)
	found, err := client.Get(ctx, "go/large")
	check(err)
	expect(string(found.Kvs[0].Value) == value, "a large value came back as another")
	_, err = client.Delete(ctx, "go/", clientv3.WithPrefix())
	check(err)
}

func sync(client *clientv3.Client) {
	if *members == "" {
		return
	}
	check(client.Sync(ctx))
	found := map[string]bool{}
	for _, endpoint := range client.Endpoints() {
		found[endpoint] = true
	}
	for _, member := range strings.Split(*members, ",") {
		expect(found[member], "%s is not among %v", member, client.Endpoints())
	}
	_, err := client.Put(ctx, "go/sync", "x")
	check(err)
	_, err = client.Delete(ctx, "go/sync")
	check(err)
}
