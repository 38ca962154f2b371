// Clients that write and read the same keys through the endpoints given and directly at etcd, while leases end; every
// answer is checked against the log of all that was written. Prints one line of JSON; ends with status 1 if anything was
// wrong.
//
// It takes the whole key space of the cluster for itself and empties it first.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/ioutil"
	"math/rand"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/mvcc/mvccpb"
	"google.golang.org/grpc/grpclog"

	"../check"
	"../etcd"
)

var (
	endpoints = flag.String("endpoints", "", "where clients connect to, comma separated")
	direct    = flag.String("direct", "", "etcd's own addresses, comma separated; clients use them too")
	seed      = flag.Int64("seed", 1, "of everything that is chosen at random")
	clients   = flag.Int("clients", 6, "connections to each endpoint, and to etcd")
	lasting   = flag.Duration("for", 10*time.Second, "how long they go on")
	bound     = flag.Duration("bound", time.Second, "how old what a serializable read finds may be")
	slack     = flag.Duration("slack", 500*time.Millisecond, "added to the bound for a busy machine")
	pace      = flag.Duration("pace", 2*time.Millisecond, "between two operations of a client, on average")
	user      = flag.String("user", "", "name:password of those who read and write")
	stranger  = flag.String("stranger", "", "name:password of one who may read nothing")
)

// Knowledge is when it was first certain that a revision is there.
type Knowledge struct {
	sync.Mutex
	since map[int64]time.Duration
}

var (
	began = time.Now()
	known = Knowledge{since: map[int64]time.Duration{}}
)

func now() time.Duration { return time.Since(began) }

func (known *Knowledge) of(revision int64) {
	moment := now()
	known.Lock()
	defer known.Unlock()
	if before, isThere := known.since[revision]; !isThere || moment < before {
		known.since[revision] = moment
	}
}

func main() {
	flag.Parse()
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(ioutil.Discard, ioutil.Discard, ioutil.Discard))
	report, log := check.NewReport(), check.NewLog()
	cluster := etcd.NewAs(strings.Split(*direct, ","), *user)
	var events []*mvccpb.Event
	truth := etcd.Follow(cluster, log, report, func(some []*mvccpb.Event) {
		events = append(events, some...)
		for _, event := range some {
			known.of(event.Kv.ModRevision)
		}
	})
	over := make(chan struct{})
	var group sync.WaitGroup
	var all []*Client
	for index, address := range append(strings.Split(*endpoints, ","), strings.Split(*direct, ",")...) {
		for number := 0; number < *clients; number++ {
			random := rand.New(rand.NewSource(*seed*1_000_003 + int64(index*1000+number)))
			client := newClient(fmt.Sprintf("client %d of %s", number, address), address, random, log, report)
			all = append(all, client)
			group.Add(1)
			go func() {
				defer group.Done()
				client.run(over)
			}()
		}
	}
	time.Sleep(*lasting)
	close(over)
	group.Wait()
	truth.WaitFor(cluster.Put("last", ""))
	judge := newJudge(events, report)
	for _, client := range all {
		judge.judge(client)
	}
	judge.registers(all)
	line, err := json.Marshal(map[string]interface{}{
		"operations": operations(all), "violations": report.Counts, "examples": report.Examples, "total": report.Total(),
		"tolerated": report.Tolerated, "events": len(events), "stalest_ms": judge.stalest.Milliseconds(), "seed": *seed,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
	if report.Total() > 0 || len(events) == 0 {
		os.Exit(1)
	}
}

// operations counts what was done, by kind.
func operations(all []*Client) map[string]int {
	counts := map[string]int{}
	for _, client := range all {
		for name, count := range client.counts {
			counts[name] += count
		}
	}
	return counts
}
