#!/bin/bash
# Runs the Swift tests, and names those that failed at the end, where they are found.
set -uo pipefail
cd "$(dirname "$0")/.."

log=.build/swift-test.log
"${SWIFT:-swift}" test --skip-build --disable-xctest "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
if [ "$status" -ne 0 ]; then
  echo "What failed:"
  grep -A 4 -E "✘|crashed|Fatal error" "$log" | cut -c 1-600 | tail -60
fi
exit "$status"
