package main

import (
	"math/rand"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"../check"
)

// oldestQuestion is the age at which a request for progress counts as never answered.
const oldestQuestion = 10 * time.Second

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
	group := key(0, 0)
	made = append(made, check.Spec{Key: group[:5], End: group[:4] + "0"}, check.Spec{Key: prefix, End: "k0"})
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
	if err != nil {
		panic(err)
	}
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
