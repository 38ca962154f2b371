#!/bin/bash
# The Swift tests under AddressSanitizer and ThreadSanitizer, each in a build folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

# Optimised: the storms of random bytes take an hour otherwise. And in a debug build the generic rings and mailboxes are
# called through witnesses whose accesses are not instrumented, so that a missing release would go unnoticed.
for sanitizer in address thread; do
  echo "== $sanitizer sanitizer"
  swift test --disable-xctest --scratch-path ".build/$sanitizer" --sanitize="$sanitizer" \
    -c release -Xswiftc -enable-testing
done
