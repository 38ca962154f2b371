#!/bin/bash
# Runs the gRPC proxy and the gateway to try them out: before an etcd that is there already, or else a throw-away one.
# Further arguments go to `ringway gateway start`.
set -euo pipefail
cd "$(dirname "$0")/.."

etcd_url=http://127.0.0.1:2379
proxy=127.0.0.1:23790
gateway=127.0.0.1:23791
metrics=http://127.0.0.1:23792
folder=
etcd_pid=
proxy_pid=
gateway_pid=

# Ends what was started, etcd last, and leaves no file behind.
finish() {
  trap - EXIT
  trap '' INT TERM HUP
  stop "$proxy_pid"
  stop "$gateway_pid"
  stop "$etcd_pid"
  if [ -n "$folder" ]; then rm -rf "$folder"; fi
}

# SIGTERM, and SIGKILL for what has not ended after eight seconds.
stop() {
  local pid=$1
  if [ -z "$pid" ]; then return; fi
  kill "$pid" 2>/dev/null || true
  for _ in {1..80}; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

answers() { curl --silent --fail --max-time 2 --output /dev/null "$1"; }

# await URL PID: true when the URL answers, false when the process has ended or ten seconds have passed.
await() {
  for _ in {1..100}; do
    if answers "$1"; then return 0; fi
    kill -0 "$2" 2>/dev/null || return 1
    sleep 0.1
  done
  return 1
}

if answers $etcd_url/version; then
  where="The etcd that runs on 127.0.0.1:2379 is used and stays as it is."
else
  folder=$(mktemp -d "${TMPDIR:-/tmp}/ringway-run.XXXXXX")
  etcd --data-dir "$folder/data" --log-outputs "$folder/log" --logger zap \
    --listen-client-urls $etcd_url --advertise-client-urls $etcd_url >"$folder/out" 2>&1 &
  etcd_pid=$!
  if ! await $etcd_url/health $etcd_pid; then
    tail -n 5 "$folder/out" "$folder/log" >&2 || true
    echo "etcd does not start; is port 2379 or 2380 in use?" >&2
    exit 1
  fi
  where="A throw-away etcd runs on 127.0.0.1:2379; its data goes when this ends."
fi

.build/release/ringway grpc-proxy start --listen-addr=$proxy --advertise-client-url=$proxy \
  --endpoints=127.0.0.1:2379 --log-format=console &
proxy_pid=$!
if ! await http://$proxy/proxy/health $proxy_pid; then
  echo "The gRPC proxy does not start; the lines above say why." >&2
  exit 1
fi

.build/release/ringway gateway start --listen-addr=$gateway --endpoints=127.0.0.1:2379 \
  --metrics-addr=$metrics --log-format=console "$@" &
gateway_pid=$!
if ! await $metrics/health $gateway_pid; then
  echo "The gateway does not start; the lines above say why." >&2
  exit 1
fi

cat <<TEXT

  The gRPC proxy is on $proxy, the gateway on $gateway. $where

  In another terminal:

    export ETCDCTL_API=3
    etcdctl --endpoints=$gateway put greeting hello
    etcdctl --endpoints=$proxy get greeting
    etcdctl --endpoints=$proxy watch greeting     and change the key in a third terminal
    curl http://$proxy/proxy/metrics
    curl $metrics/metrics

  Ctrl-C ends everything.

TEXT

status=0
wait -n ${etcd_pid:+"$etcd_pid"} "$proxy_pid" "$gateway_pid" || status=$?
echo "A process ended by itself, with status $status." >&2
exit 1
