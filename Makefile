# The build is CMake's; this file only names the usual steps. `make` alone lists them.
SHELL := /bin/bash
JOBS ?= $(shell nproc)
BUILD := build
OPTIONS ?=
PACKAGES := build-essential cmake ninja-build pkg-config git ca-certificates libopenmpi-dev openmpi-bin libdnnl-dev \
  libopenblas-openmp-dev libpng-dev libtiff-dev libopenjp2-7-dev libzstd-dev zlib1g-dev libhdf5-dev libyaml-dev \
  libjansson-dev libxxhash-dev liblbfgs-dev libzip-dev
TEST_PACKAGES := libcmocka-dev clang libclang-rt-14-dev

.DEFAULT_GOAL := help
.PHONY: help setup setup-test build demo test test-mutants test-science bench bench-compare fuzz clean

help:
	@echo 'lamella: self-supervised representation learning on microscope images'
	@echo
	@echo '  make demo          install what is missing, build, and run images -> map -> report: runs/demo/report.html, 350 MB'
	@echo '                     (four minutes on two idle cores, ten on busy ones; three more where nvcc builds the CUDA module)'
	@echo '  make test          install what is missing, build, and run every test (ten to twenty minutes on two cores)'
	@echo '  make test-mutants  bugs put into the CUDA kernels one at a time: is each found? (five minutes on two idle cores)'
	@echo '  make build         the command, at build/lamella; OPTIONS=-DLAM_CUDA=OFF: without CUDA where nvcc is found'
	@echo '  make setup         the Debian packages that the build needs (skipped where they are in)'
	@echo '  make setup-test    those that the tests need beside them'
	@echo '  make test-science  three seeds, three effect strengths: does training recover more than statistics? (2 h on 2 cores)'
	@echo '  make fuzz          ten minutes of fuzzing for each parser'
	@echo '  make bench         speed of a training step in both precisions and of relate beside the limit of this machine'
	@echo '  make bench-compare a training step beside the same in PyTorch, of the Python that PYTHON names (an hour on two idle cores)'
	@echo '  make clean         remove build/ (runs/ stays)'

# Installs what dpkg does not know as installed: as root, or through sudo. Asks nothing.
define install_missing
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "setup: installing" $$missing; \
	  if [ "$$(id -u)" = 0 ]; then run=""; elif sudo -n true 2>/dev/null || [ -t 0 ]; then run="sudo"; else \
	    echo "setup: these Debian packages are missing, and neither root nor sudo is at hand:" $$missing >&2; exit 1; fi; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  $$run apt-get update -qq && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing > /dev/null \
	    || { echo "setup: apt-get failed; install by hand:" $$missing >&2; exit 1; }; \
	fi
endef

setup:
	$(call install_missing,$(PACKAGES))

setup-test: setup
	$(call install_missing,$(TEST_PACKAGES))

build: setup
	@cmake --preset release -DBUILD_TESTING=OFF $(OPTIONS) > $(BUILD)-configure.log 2>&1 || { cat $(BUILD)-configure.log; rm -f $(BUILD)-configure.log; exit 1; }
	@grep -E '^-- (no )?(CUDA|NCCL)' $(BUILD)-configure.log | sed 's/^-- /build: /' || true
	@rm -f $(BUILD)-configure.log
	@cmake --build --preset release -j $(JOBS) --target lamella

demo: build
	@bash configs/demo.sh $(BUILD)/lamella runs/demo

test: setup-test
	@bash tests/run.sh $(JOBS)

test-mutants: setup-test
	@cmake --preset release -DBUILD_TESTING=ON > $(BUILD)-configure.log 2>&1 || { cat $(BUILD)-configure.log; rm -f $(BUILD)-configure.log; exit 1; }
	@rm -f $(BUILD)-configure.log
	@cmake --build --preset release -j $(JOBS) --target device_tests
	@bash tests/cuda_emulation/mutants.sh $(BUILD) $(JOBS)

test-science: build
	@bash tests/science.sh $(BUILD)/lamella runs/science

bench: build
	@$(BUILD)/lamella bench step --model s16 --batch 8
	@$(BUILD)/lamella bench step --model s16 --batch 8 --precision bf16
	@$(BUILD)/lamella bench relate

bench-compare: build
	@mkdir -p runs
	@bash tests/bench/compare.sh $(BUILD)/lamella --out runs/bench_compare.json

fuzz: setup-test
	@bash tests/fuzz.sh 600

clean:
	rm -rf $(BUILD)
