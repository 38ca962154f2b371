#!/usr/bin/env bash
# The seeded simulations, optimised: SEEDS for the pump, a hundredth of it for each mood of the whole gateway.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=$1
seed=${2:-}
run() { swift test -c release -Xswiftc -enable-testing --scratch-path .build/sim --disable-xctest "$@"; }

if [ -n "$seed" ]; then
  RINGWAY_SEED=$seed run --filter "Simulation"
else
  RINGWAY_SEEDS=$seeds run --filter PumpSimulation
  RINGWAY_SEEDS=$((seeds / 100)) run --filter GatewaySimulation
fi
