# What can be done with this repository; `make` alone prints the list.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

SWIFT ?= swift
# The distribution's own Python: it is the one that the distribution's pytest belongs to.
PYTHON ?= /usr/bin/python3
RELEASE := -c release --static-swift-stdlib
FORMAT := --recursive --parallel --configuration .swift-format Sources Tests Package.swift

.PHONY: help setup build run test conformance suites sim bench bench-quick lint format sanitize clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the packages that are missing (apt-get; root or sudo)
	@scripts/setup.sh

build: ## release build: .build/release/ringway
	$(SWIFT) build $(RELEASE)

run: setup build ## the gRPC proxy on 127.0.0.1:23790 and the gateway on 127.0.0.1:23791, with a throw-away etcd if none runs
	@scripts/run.sh $(ARGS)

test: setup ## all tests, in the end against a real etcd; PYTEST_ARGS="…" for the integration tests
	$(SWIFT) build --build-tests
	$(SWIFT) build $(RELEASE)
	@scripts/swift-test.sh
	$(PYTHON) -m pytest $(PYTEST_ARGS) Tests/Integration

conformance: setup build ## every answer beside etcd's own, on all 16 kinds of etcd and proxy, about seven minutes
	RINGWAY_WAYS=all $(PYTHON) -m pytest $(PYTEST_ARGS) Tests/Integration/test_conformance.py

suites: setup build ## etcd's own end-to-end and integration tests through the proxy, about ten minutes; SUITES=e2e for one of them
	@scripts/etcd-suites.sh $(SUITES)

SEEDS ?= 100000
sim: setup ## the simulations in release, SEEDS=100000 for the pump and a hundredth of it for whole gateways; SEED=n repeats one
	@scripts/sim.sh $(SEEDS) $(SEED)

bench: setup build ## compare with etcd's gateway and gRPC proxy and with HAProxy, about twenty minutes
	$(MAKE) -C Benchmarks
	$(PYTHON) Benchmarks/gateway.py
	$(PYTHON) Benchmarks/proxy.py
	@scripts/etcd-3.5.sh
	$(PYTHON) Benchmarks/watch.py

bench-quick: setup build ## the same with fewer runs, about six minutes
	$(MAKE) -C Benchmarks
	$(PYTHON) Benchmarks/gateway.py --quick
	$(PYTHON) Benchmarks/proxy.py --quick
	@scripts/etcd-3.5.sh
	$(PYTHON) Benchmarks/watch.py --quick

lint: ## check the format of the Swift code
	$(SWIFT) format lint --strict $(FORMAT)

format: ## bring the Swift code into that format
	$(SWIFT) format format --in-place $(FORMAT)

sanitize: setup ## the Swift tests under the address and the thread sanitizer
	@scripts/sanitize.sh

clean: ## remove everything that was built
	rm -rf .build
