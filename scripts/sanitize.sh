#!/bin/bash
# The Swift tests under AddressSanitizer and ThreadSanitizer, each in a build folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "== address sanitizer"
swift test --disable-xctest --scratch-path .build/address --sanitize=address

# In a debug build the generic rings and mailboxes are called through witnesses whose accesses are not instrumented:
# a missing release would go unnoticed. A release build specialises them.
echo "== thread sanitizer"
swift test --disable-xctest --scratch-path .build/thread --sanitize=thread -c release -Xswiftc -enable-testing
