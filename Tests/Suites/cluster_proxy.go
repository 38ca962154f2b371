//go:build cluster_proxy
// +build cluster_proxy

// Stands in for the file of this name in etcd's integration tests: each client of a member gets a Ringway process of its own in
// between, and the calls that the tests make by hand go through the same process.
package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/etcdserver/api/v3lock/v3lockpb"
	pb "go.etcd.io/etcd/etcdserver/etcdserverpb"
)

// ThroughProxy would skip what etcd's own proxy cannot do.
const ThroughProxy = false

func toGRPC(client *clientv3.Client) grpcAPI {
	through := client.ActiveConnection()
	return grpcAPI{
		Cluster: pb.NewClusterClient(through), KV: pb.NewKVClient(through), Lease: pb.NewLeaseClient(through),
		Watch: pb.NewWatchClient(through), Maintenance: pb.NewMaintenanceClient(through),
		Auth: pb.NewAuthClient(through), Lock: v3lockpb.NewLockClient(through),
		Election: v3electionpb.NewElectionClient(through),
	}
}

func newClientV3(config clientv3.Config) (*clientv3.Client, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	arguments := []string{"grpc-proxy", "start", "--listen-addr", address, "--advertise-client-url", "",
		"--endpoints", strings.Join(config.Endpoints, ",")}
	if config.TLS != nil {
		files := os.Getenv("RINGWAY_CERTIFICATES")
		arguments = append(arguments, "--cacert", files+"/ca.crt", "--cert", files+"/client-nocn.crt",
			"--key", files+"/client-nocn.key.insecure", "--insecure-skip-tls-verify")
	}
	proxy := exec.Command(os.Getenv("RINGWAY"), arguments...)
	if err := start(proxy); err != nil {
		return nil, err
	}
	config.Endpoints, config.TLS = []string{address}, nil
	client, err := clientv3.New(config)
	if err != nil {
		proxy.Process.Kill()
		proxy.Wait()
		return nil, err
	}
	go func() {
		<-client.Ctx().Done()
		proxy.Process.Signal(os.Interrupt)
		proxy.Wait()
	}()
	return client, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// start waits for the line that says that the proxy is ready.
func start(proxy *exec.Cmd) error {
	log, err := proxy.StderrPipe()
	if err != nil {
		return err
	}
	if err := proxy.Start(); err != nil {
		return err
	}
	lines, said := bufio.NewReader(log), ""
	for !strings.Contains(said, "started gRPC proxy") {
		line, err := lines.ReadString('\n')
		said += line
		if err != nil {
			proxy.Wait()
			return fmt.Errorf("the proxy did not start: %s", said)
		}
	}
	go io.Copy(io.Discard, lines)
	return nil
}
