# `make help` lists what there is to do. Everything that a target needs is installed by it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo

SEEDS ?= 10000

.PHONY: help demo test bench bench-decisions simulate mutants lint fmt manifests cluster cluster-down image install-cli clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## a real cluster, a good release promoted, two bad ones caught, while traffic runs
	@hack/demo

test: ## everything: format, lints, unit tests, properties, command line, the real cluster
	@hack/test

bench: ## the figures with their bounds; writes target/bench/report.json
	@hack/bench

bench-decisions: ## the decision engine's figures by simulation, other tools beside it; target/bench/decisions.json
	$(CARGO) bench --quiet --bench decisions

simulate: ## random histories in the simulator: SEEDS=10000, or SEED=7 for one with every step
	@BELAY_SEEDS=$(SEEDS) $(if $(SEED),BELAY_SEED=$(SEED)) $(CARGO) test --quiet --test it -- --nocapture world::random::

mutants: ## seed defects, one at a time, and see that the simulator finds each (about an hour)
	@hack/mutants

lint: ## format and clippy, as in test
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings

fmt: ## format the code
	$(CARGO) fmt

manifests: ## write manifests/ anew from the Rust types
	$(CARGO) run --quiet -- crds --write manifests

cluster: ## start the local cluster and load the images that the tests use
	@hack/cluster up --with-prometheus --with-gateway
	@hack/images sample --load > /dev/null

cluster-down: ## take the local cluster down and leave nothing
	@hack/cluster down

image: ## build the operator's image as an OCI archive and print its path
	$(CARGO) build --release
	@hack/images belay --binary target/release/belay --tag 0.1.0

install-cli: ## put belay and kubectl-belay into cargo's bin folder
	$(CARGO) install --path . --locked
	@ln -sf belay "$${CARGO_HOME:-$$HOME/.cargo}/bin/kubectl-belay"

clean: ## remove what was built here
	$(CARGO) clean
