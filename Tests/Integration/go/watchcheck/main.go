// Watchers of all kinds through the endpoints given, while keys are written directly at etcd; everything that is
// delivered is checked against what was written. Prints one line of JSON; ends with status 1 if anything was wrong.
//
// It takes the whole key space of the cluster for itself and empties it first.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io/ioutil"
	"math/rand"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/grpclog"

	"../check"
	"../etcd"
)

var (
	endpoints   = flag.String("endpoints", "", "where the watchers connect to, comma separated")
	direct      = flag.String("direct", "", "etcd's own addresses, comma separated")
	seed        = flag.Int64("seed", 1, "of everything that is chosen at random")
	deliveries  = flag.Int64("deliveries", 100000, "events delivered until it ends")
	limit       = flag.Duration("limit", 10*time.Minute, "it ends then, whatever was delivered")
	connections = flag.Int("connections", 20, "of watchers")
	streams     = flag.Int("streams", 2, "Watch streams a connection")
	watchers    = flag.Int("watchers", 5, "watches a stream")
	ranges      = flag.Int("ranges", 40, "different ranges that are watched")
	rate        = flag.Int("rate", 400, "writes a second; 0: as fast as they are answered")
	writers     = flag.Int("writers", 4, "how many write")
	large       = flag.Bool("large", true, "now and then revisions of more than a megabyte")
	pace        = flag.Duration("pace", 300*time.Millisecond, "how often a connection does something, 0: never")
	storm       = flag.Duration("storm", 5*time.Second, "how often all connections break at once, 0: never")
	compaction  = flag.Duration("compaction", 3*time.Second, "how often etcd compacts, 0: never")
	requested   = flag.Bool("requested-progress", true, "ask for progress; etcd itself answers wrongly before 3.4.25 and 3.5.8")
	survive     = flag.Bool("survive", false, "a stream that the other side ends is a violation, unless for want of a leader")
	patience    = flag.Duration("patience", 30*time.Second, "how long the last events may take")
	wait        = flag.Bool("wait", false, "before the last events: say so on standard error and wait for a line")
)

// Counts of one run.
type Counts struct {
	Deliveries, Responses, Fragments, Created, Breaks, Progress, Notified, Compacted, Acknowledged, Stuck int64
}

var counts Counts

func count(number *int64, by int64) { atomic.AddInt64(number, by) }

// ends counts how streams were ended by the other side.
var ends = struct {
	sync.Mutex
	byReason map[string]int64
}{byReason: map[string]int64{}}

func main() {
	flag.Parse()
	// The library says more than anybody wants to know while members fail.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(ioutil.Discard, ioutil.Discard, ioutil.Discard))
	report, log := check.NewReport(), check.NewLog()
	began := time.Now()
	cluster := etcd.New(strings.Split(*direct, ","))
	truth := etcd.Follow(cluster, log, report, nil)
	traffic := startWriters(cluster, log)
	clients := startClients(strings.Split(*endpoints, ","), log, report)
	for atomic.LoadInt64(&counts.Deliveries) < *deliveries && time.Since(began) < *limit {
		time.Sleep(20 * time.Millisecond)
	}
	clients.calm()
	traffic.stop()
	reached := time.Since(began)
	if *wait {
		fmt.Fprintln(os.Stderr, "calm")
		bufio.NewReader(os.Stdin).ReadString('\n')
	}
	last := fence(cluster)
	truth.WaitFor(last)
	clients.finish(*patience)
	traffic.verify(report)
	out := map[string]interface{}{
		"counts": counts, "violations": report.Counts, "examples": report.Examples, "total": report.Total(),
		"stream_ends": ends.byReason, "events": log.Count(), "seconds": reached.Seconds(), "seed": *seed,
		"truth_resumed": truth.Resumed(), "tolerated": report.Tolerated,
	}
	line, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
	if report.Total() > 0 || log.Count() == 0 {
		os.Exit(1)
	}
}

// chance makes a source of randomness for one of many.
func chance(number int) *rand.Rand { return rand.New(rand.NewSource(*seed*1_000_003 + int64(number))) }

// between waits for about this long, or less if it is over.
func pause(random *rand.Rand, about time.Duration, over <-chan struct{}) bool {
	timer := time.NewTimer(time.Duration(random.Int63n(int64(2 * about))))
	defer timer.Stop()
	select {
	case <-over:
		return false
	case <-timer.C:
		return true
	}
}
