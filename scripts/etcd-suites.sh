#!/bin/bash
# etcd's own end-to-end and integration tests, with Ringway in the place of etcd's proxy and gateway. Debian's
# golang-etcd-server-dev has them; they are copied to the build folder, and one file is replaced by Tests/Suites/cluster_proxy.go.
# Arguments: which of the three suites to run (e2e, integration, client), else all. TESTS=… is a pattern of test names.
set -euo pipefail
cd "$(dirname "$0")/.."

sources=/usr/share/gocode
etcd=go.etcd.io/etcd
work=$PWD/.build/suites
ringway=${RINGWAY:-$PWD/.build/release/ringway}
suites=${*:-e2e integration client}

# Not about the proxy: the first speaks version 2 of the API, the second expects TLS between the client and the member.
known='TestCtlV3Migrate|TestTLSGRPCRejectSecureClient'

mkdir -p "$work/bin"
if [ ! -d "$work/go/src/$etcd" ]; then
  mkdir -p "$work/go/src/$etcd"
  cp -rL "$sources/src/$etcd/." "$work/go/src/$etcd"
fi
cp Tests/Suites/cluster_proxy.go "$work/go/src/$etcd/integration/cluster_proxy.go"
cat >"$work/bin/etcd" <<EOF
#!/bin/bash
case "\$1" in grpc-proxy|gateway) exec -a etcd "$ringway" "\$@" ;; esac
exec /usr/bin/etcd "\$@"
EOF
chmod +x "$work/bin/etcd"
ln -sf "$(command -v etcdctl)" "$work/bin/etcdctl"

export GO111MODULE=off GOPATH="$work/go:$sources" GOCACHE="$work/cache" CGO_ENABLED=0 GOFLAGS=
export RINGWAY="$ringway" RINGWAY_CERTIFICATES="$work/go/src/$etcd/integration/fixtures"

run() { # name, folder, pattern, flags
  local name=$1 folder=$work/go/src/$etcd/$2 pattern=$3
  shift 3
  (cd "$folder" && go test -c -tags cluster_proxy -o "$work/$name.test" .)
  echo "== $name"
  (cd "$folder" && "$work/$name.test" -test.v -test.timeout 30m -test.run "${TESTS:-$pattern}" "$@") \
    >"$work/$name.log" 2>&1 || true
  grep -E '^(--- FAIL|panic:)' "$work/$name.log" | grep -vE "$known" >"$work/$name.failed" || true
  local passed failed
  passed=$(grep -c '^--- PASS' "$work/$name.log" || true)
  failed=$(wc -l <"$work/$name.failed")
  cat "$work/$name.failed"
  echo "$name: $passed passed, $failed failed"
  [ "$passed" -gt 0 ] && [ "$failed" -eq 0 ]
}

status=0
for suite in $suites; do
  case $suite in
    e2e) run e2e tests/e2e 'TestCtlV3|TestGateway|TestV3Curl|TestWatch|TestRole' \
      -bin-dir "$work/bin" -cert-dir "$RINGWAY_CERTIFICATES" || status=1 ;;
    integration) run integration integration \
      'TestV3|TestGRPC|TestTLS|TestElection|TestLock|TestMutex|TestRWMutex|TestSTM|TestBarrier|TestQueue|TestDoubleBarrier|TestHealthCheck|TestMoveLeader|TestMetrics' \
      || status=1 ;;
    client) run client clientv3/integration . || status=1 ;;
    *) echo "no suite $suite: e2e, integration, client" >&2; exit 2 ;;
  esac
done
exit $status
