#!/bin/bash
# Installs what building, running and testing need and this machine lacks. Does nothing when nothing is missing.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
missing=()

# need PACKAGE CHECK…: the package goes on the list unless the check succeeds.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

need gcc command -v gcc
need make command -v make
need pkg-config command -v pkg-config
need liburing-dev pkg-config --exists liburing
need libnghttp2-dev pkg-config --exists libnghttp2
need libssl-dev pkg-config --exists libssl
need libc-ares-dev pkg-config --exists libcares
need etcd-server command -v etcd
need etcd-client command -v etcdctl
need haproxy command -v haproxy
need python3 test -x /usr/bin/python3
need python3-pytest /usr/bin/python3 -c 'import pytest'
need python3-grpcio /usr/bin/python3 -c 'import grpc'
need python3-protobuf /usr/bin/python3 -c 'import google.protobuf'
need python3-grpc-tools /usr/bin/python3 -c 'import grpc_tools.protoc'
need nghttp2-client command -v h2load
need golang-go command -v go
need golang-etcd-server-dev test -d /usr/share/gocode/src/go.etcd.io/etcd/clientv3
need iproute2 command -v ip
need iptables command -v iptables
need openssl command -v openssl
need curl command -v curl
need nghttp2-client command -v h2load

if ! command -v swift >/dev/null; then
  echo "Swift 6.2 or newer is missing; https://www.swift.org/install/linux tells how to install it." >&2
  exit 1
fi
if [ ${#missing[@]} -eq 0 ]; then exec "$(dirname "$0")/etcd-3.5.sh"; fi

if ! command -v apt-get >/dev/null; then
  echo "Please install what Debian calls: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "Please install as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends "$@"; }

# The packages of etcd and HAProxy start a service each. We want their programs only: a service would take port 2379.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap '"${as_root[@]}" rm -f $policy' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
  "${as_root[@]}" chmod 755 $policy
fi

echo "Installing ${missing[*]}"
# The lists of packages may be missing (fresh container) or too old (an address that is gone).
if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then apt update; fi
apt install "${missing[@]}" || { apt update && apt install "${missing[@]}"; }

# The same at the next boot.
if [ -d /run/systemd/system ]; then
  for package in "${missing[@]}"; do
    case $package in
      etcd-server) "${as_root[@]}" systemctl disable --quiet etcd.service || true ;;
      haproxy) "${as_root[@]}" systemctl disable --quiet haproxy.service || true ;;
    esac
  done
fi

"$(dirname "$0")/etcd-3.5.sh"
