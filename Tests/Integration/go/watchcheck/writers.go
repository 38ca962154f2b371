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

	"../check"
	"../etcd"
)

const prefix = "k/"

// key number n of the group g.
func key(group, number int) string { return fmt.Sprintf("%s%02d/%02d", prefix, group, number) }

const groups, keysOfGroup = 20, 10

// fence writes to every key, so that nobody has nothing to wait for.
func fence(cluster *etcd.Etcd) (last int64) {
	for group := 0; group < groups; group++ {
		for number := 0; number < keysOfGroup; number++ {
			last = cluster.Put(key(group, number), "the end")
		}
	}
	return last
}

// Writers change keys in all ways there are.
type Writers struct {
	cluster *etcd.Etcd
	log     *check.Log
	over    chan struct{}
	group   sync.WaitGroup
	mutex   sync.Mutex
	acked   []int64
	seq     int64
	turn    chan struct{}
}

func startWriters(cluster *etcd.Etcd, log *check.Log) *Writers {
	made := &Writers{cluster: cluster, log: log, over: make(chan struct{}), turn: make(chan struct{})}
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
		lease, err := made.cluster.Client.Grant(ctx, 1+random.Int63n(3))
		if err != nil {
			return nil
		}
		var ops []clientv3.Op
		for number := 0; number < 4; number++ {
			ops = append(ops, clientv3.OpPut(key(group, number), made.value(random), clientv3.WithLease(lease.ID)))
		}
		return ops
	case choice < 854 && *large:
		// Often enough in the same place that previous values are large too.
		group = random.Intn(2)
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
	answer, err := made.cluster.Client.Txn(ctx).Then(made.operations(random)...).Commit()
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
		made.cluster.Client.Compact(ctx, revision)
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
			report.Violation("truth", "%d was confirmed and is not in the log", revision)
		}
	}
}
