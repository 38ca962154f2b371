#!/bin/bash
# The Swift tests under AddressSanitizer and ThreadSanitizer, each in a build folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export RINGWAY_SANITIZER=1

# A debug build, in which what a test holds lives until its end; so with fewer seeds.
echo "== address sanitizer"
RINGWAY_SEEDS=${SEEDS:-20} swift test --disable-xctest --scratch-path .build/address --sanitize=address

# In a debug build the generic rings and mailboxes are called through witnesses whose accesses are not instrumented:
# a missing release would go unnoticed. A release build specialises them.
echo "== thread sanitizer"
RINGWAY_SEEDS=${SEEDS:-100} swift test --disable-xctest --scratch-path .build/thread --sanitize=thread -c release \
  -Xswiftc -enable-testing
