# Everything starts here; `make help` lists it. One profile (release) for the demo, the tests and the measurements, so
# that every dependency is compiled once. With CI set, the compiled dependencies stay outside the checkout.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

cache := $(or $(MILLSTREAM_CACHE),$(HOME)/.cache/millstream)
ifdef CI
export CARGO_TARGET_DIR ?= $(cache)/target
endif
target := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo build test lint images pods check-kubernetes setup-build setup-test binaries

help: ## What there is
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1 \t\2/p' Makefile | expand -t 26

demo: setup-build binaries ## Set up, build, and run a windowed aggregation over generated events
	@$(target)/release/millstream run --demo

build: setup-build binaries ## Set up and build the three programs

test: setup-test lint binaries ## Set up, lint, and pass every test, end to end with a real broker and S3 server
	@dev/phase.sh test dev/with-servers.sh cargo test --release --workspace --no-fail-fast
	@$(MAKE) --no-print-directory check-kubernetes pods

lint: ## Format, clippy, documentation, dependencies, licences
	@dev/phase.sh fmt cargo fmt --all --check
	@dev/phase.sh crates dev/check-crates.sh
	@dev/phase.sh clippy cargo clippy --release --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS='-D warnings' dev/phase.sh rustdoc cargo doc --release --workspace --no-deps
	@dev/phase.sh deny dev/deny.sh

images: setup-build binaries ## Images of the three programs, and a run of them without privileges
	@dev/phase.sh setup-image dev/setup.sh image
	@MILLSTREAM_BINARIES=$(target)/release dev/phase.sh image dev/image.sh build
	@dev/phase.sh image-test dev/image-test.sh

pods: images ## The pods of k8s/overlays/dev with runc, as the manifests say; needs root
	@dev/phase.sh setup-kubernetes dev/setup.sh kubernetes
	@dev/phase.sh image-s3 dev/image.sh s3
	@dev/phase.sh pods $(cache)/tools/kubernetes/venv/bin/python k8s/tests/pods.py

check-kubernetes: ## Manifests, alerts and policies, as far as that needs no cluster
	@dev/phase.sh setup-kubernetes dev/setup.sh kubernetes
	@MILLSTREAM_BINARIES=$(target)/release dev/phase.sh kubernetes dev/k8s-check.sh

setup-build:
	@dev/phase.sh setup dev/setup.sh build

setup-test:
	@dev/phase.sh setup dev/setup.sh test

binaries:
	@dev/phase.sh build cargo build --release --workspace --bins
