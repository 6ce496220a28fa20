# `make` lists what there is. Each target installs what it needs first (scripts/setup.sh), so Debian
# with Rust and make is enough to start from. Everything is built with the release profile, so that
# the stages share their artefacts, and every stage has a limit in seconds (scripts/stage.sh).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build test beside-tests faults differential demo demo-ci bench durability image fuzz model simulate image-debian fmt lint check clean

# The stages of one target follow each other; cargo itself uses all cores.
.NOTPARALLEL:

CARGO ?= cargo
STAGE := scripts/stage.sh
OUT := $(or $(CARGO_TARGET_DIR),target)
# On CI, a Cargo.lock that doesn't fit the manifests is a failure and not something to mend quietly.
LOCKED := $(if $(CI),--locked)
TWINVM := $(CARGO) run --release --package twinvm $(LOCKED) --

DEMO_ARGS ?=
GUEST ?= redis
DIFF_ARGS ?=
BENCH_ARGS ?=
IMAGE_ARGS ?=
DEMO_KILLS ?= 6
FAULTS ?=
FAULT_ROUNDS ?= 1
FAULTS_OUTPUT ?= live
SIM_ARGS ?= --minutes 10
MODEL_ARGS ?= --faults 2 --requests 1
FUZZ_TARGET ?= virtqueues
FUZZ_SECONDS ?= 300
# Any number does; the demonstration prints it, and the same one repeats the run.
ifndef DEMO_SEED
DEMO_SEED := $(shell date +%s)
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# Without the second engine: cargo build --release --package twinvm --no-default-features
build: ## build the twinvm program (target/release/twinvm)
	@$(STAGE) setup 300 scripts/setup.sh build
	@$(STAGE) build 900 $(CARGO) build --release --package twinvm $(LOCKED)

test: ## every check and every test, from nothing: what CI runs
	@$(STAGE) setup 600 scripts/setup.sh test
	@$(STAGE) spike 600 scripts/spike.sh
	@$(STAGE) format 60 $(CARGO) fmt --all --check
	@$(STAGE) build 1200 $(CARGO) build --release --workspace --all-targets $(LOCKED)
	@$(STAGE) rules 60 $(OUT)/release/xtask check
	@$(STAGE) image 300 $(OUT)/release/twinvm image build redis --out target/image/redis --renew
	@MAKE="$(MAKE)" scripts/beside.sh $(OUT)/beside-tests.log beside-tests \
		$(STAGE) tests 2400 $(CARGO) test --release --workspace $(LOCKED)

# Compilers' work, done while the tests mostly wait for processes; first what needs no lock of cargo's.
beside-tests:
	@$(STAGE) dependencies 2400 scripts/cargo-deny.sh
	@$(STAGE) lint 1800 $(CARGO) clippy --release --workspace --all-targets $(LOCKED) -- -D warnings
	@$(STAGE) "lint, one engine" 900 $(CARGO) clippy --release --package twinvm --no-default-features $(LOCKED) -- -D warnings
	@$(STAGE) "tests, one engine" 900 $(CARGO) test --release --package twinvm-machine --no-default-features $(LOCKED)

faults: ## real faults on three hosts in network namespaces; FAULTS=loss,disk chooses, FAULT_ROUNDS=3 repeats, FAULTS_OUTPUT=backup
	@$(STAGE) setup 600 scripts/setup.sh test
	@$(STAGE) image 900 $(TWINVM) image build redis --out target/image/redis
	@TWINVM_FAULTS=$(FAULTS) TWINVM_FAULT_ROUNDS=$(FAULT_ROUNDS) TWINVM_FAULTS_OUTPUT=$(FAULTS_OUTPUT) \
		$(CARGO) test --release --package twinvm $(LOCKED) --test faults -- every_fault --nocapture

differential: ## the processor against the reference simulator; DIFF_ARGS="--seed 1 --instructions 100000000"
	@$(STAGE) setup 600 scripts/setup.sh test
	@$(STAGE) spike 600 scripts/spike.sh
	@scripts/differential.sh $(DIFF_ARGS)

demo: ## the demonstration; GUEST=debian has a disk and PostgreSQL; DEMO_ARGS="..." goes to twinvm demo
ifeq ($(GUEST),debian)
	@$(STAGE) setup 600 scripts/setup.sh clients
	@$(STAGE) pgbench 300 scripts/pgbench.sh
	@[ -e target/image/debian/disk.img ] || $(MAKE) image-debian
else
	@$(STAGE) setup 600 scripts/setup.sh demo
endif
	@PATH="$(abspath $(OUT))/tools:$$PATH" $(TWINVM) demo --guest $(GUEST) $(DEMO_ARGS)

# On CI with the program of `make test`: a build of this package alone has other features, and is
# another build.
demo-ci: ## the demonstration without a person: DEMO_KILLS=6 kills from DEMO_SEED
	@$(STAGE) setup 600 scripts/setup.sh demo
ifdef CI
	@$(STAGE) build 1200 $(CARGO) build --release --workspace --all-targets $(LOCKED)
endif
	@$(STAGE) "demo-ci, seed $(DEMO_SEED)" 900 $(if $(CI),$(OUT)/release/twinvm,$(TWINVM)) demo --kills $(DEMO_KILLS) --seed $(DEMO_SEED) --out target/demo-ci

bench: ## the benchmarks, with QEMU as the yardstick; BENCH_ARGS="..." goes to twinvm bench
	@$(STAGE) setup 600 scripts/setup.sh bench
ifneq ($(findstring --debian,$(BENCH_ARGS)),)
	@$(STAGE) setup 600 scripts/setup.sh clients
	@$(STAGE) pgbench 300 scripts/pgbench.sh
endif
	@PATH="$(abspath $(OUT))/tools:$$PATH" $(TWINVM) bench $(BENCH_ARGS)

# Not on CI: takes minutes, and the image of make image-debian.
durability: ## power cut under PostgreSQL in a Debian guest, at any moment: what it acknowledged is there
	@$(STAGE) setup 600 scripts/setup.sh test
	@[ -e target/image/debian/disk.img ] || $(MAKE) image-debian
	@TWINVM_POWER_GUEST=debian $(CARGO) test --release --package twinvm $(LOCKED) --test pair -- \
		what_was_acknowledged_outlives --nocapture

image: ## make the redis guest image from Debian packages (target/image/redis)
	@$(STAGE) setup 600 scripts/setup.sh demo
	@$(STAGE) image 900 $(TWINVM) image build redis --out target/image/redis --renew

# Not on CI: takes minutes, and root.
image-debian: ## make the debian guest's disk (target/image/debian); as root, IMAGE_ARGS="--ssh-key FILE"
	@$(STAGE) setup 600 scripts/setup.sh debian
	@$(STAGE) image-debian 1800 $(TWINVM) image build debian --out target/image/debian --renew $(IMAGE_ARGS)

fuzz: ## one fuzz target; FUZZ_TARGET=virtqueues FUZZ_SECONDS=300 (fuzz/fuzz_targets lists them)
	@$(STAGE) setup 600 scripts/setup.sh test
	@scripts/fuzz.sh $(FUZZ_TARGET) $(FUZZ_SECONDS)

model: ## every state of the protocol within MODEL_ARGS="--faults 2 --requests 1" (--help lists more)
	@$(STAGE) setup 600 scripts/setup.sh build
	@$(CARGO) run --release --package twinvm-model $(LOCKED) -- $(MODEL_ARGS)

simulate: ## pairs in a simulated world of faults, until SIM_ARGS="--minutes 10" is over (--help lists more)
	@$(STAGE) setup 600 scripts/setup.sh build
	@$(CARGO) xtask simulate $(SIM_ARGS)

fmt: ## format the code
	$(CARGO) fmt --all

lint: ## clippy, warnings denied
	@$(STAGE) setup 600 scripts/setup.sh test
	@$(STAGE) lint 900 $(CARGO) clippy --release --workspace --all-targets $(LOCKED) -- -D warnings

check: ## the project's own rules (cargo xtask check), the format, and the dependencies' licences
	@$(STAGE) setup 600 scripts/setup.sh test
	@$(STAGE) format 60 $(CARGO) fmt --all --check
	@$(STAGE) rules 300 $(CARGO) xtask check
	@$(STAGE) dependencies 1200 scripts/cargo-deny.sh

clean: ## remove everything that was built
	$(CARGO) clean
