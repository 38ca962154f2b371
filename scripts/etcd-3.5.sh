#!/bin/bash
# Unpacks etcd 3.5 and its etcdctl into .build/etcd-3.5, for the tests that compare two releases of etcd. Nothing is
# installed: the packages come from the same mirror as this system's, out of the Debian release that has 3.5.
set -euo pipefail

release=trixie
version=3.5.16
root=$(cd "$(dirname "$0")/.." && pwd)/.build
target=$root/etcd-3.5

has_version() {
  local says
  says=$("$@" 2>/dev/null) && [[ $says == *"ersion: $version"* ]]
}
is_complete() { has_version "$target/etcd" --version && has_version "$target/etcdctl" version; }

is_complete && exit 0
for tool in apt-get dpkg; do
  command -v $tool >/dev/null || { echo "Please put etcd and etcdctl $version into $target" >&2; exit 1; }
done

# Of the configured sources the first that has a release's main component; updates and security have no etcd.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(SUITE)' 'Created-By: Packages' |
  awk '$1 !~ /security/ && $2 == "main" && $3 !~ /-/ { print $1; exit }')
[ -n "$mirror" ] || { echo "No Debian mirror among apt's sources" >&2; exit 1; }

# apt with lists and a cache of its own, so that this system's stay as they are.
own=$root/apt
mkdir -p "$own"/{lists/partial,cache/archives/partial,sources.d,preferences.d,download}
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$own/sources.list"
settings=(
  -o Dir::Etc::SourceList="$own/sources.list" -o Dir::Etc::SourceParts="$own/sources.d"
  -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$own/preferences.d"
  -o Dir::State::Lists="$own/lists" -o Dir::Cache="$own/cache" -o APT::Get::List-Cleanup=false
  # The account that apt fetches with may have no way into this folder.
  -o APT::Sandbox::User=root
)
echo "Unpacking etcd $version into $target"
apt-get -qq "${settings[@]}" update
(cd "$own/download" && rm -f ./*.deb && apt-get -qq "${settings[@]}" download etcd-server etcd-client)

unpacked=$own/unpacked
rm -rf "$unpacked" "$target"
for package in "$own"/download/*.deb; do dpkg -x "$package" "$unpacked"; done
mkdir -p "$target"
cp "$unpacked"/usr/bin/etcd "$unpacked"/usr/bin/etcdctl "$target"
rm -rf "$own"

is_complete || { echo "What came is not etcd $version" >&2; exit 1; }
