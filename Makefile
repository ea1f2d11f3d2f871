# A thin front for CMake. `make` installs missing packages, builds, and leaves the programs in build/bin.
SHELL := /bin/bash
.DEFAULT_GOAL := all
.PHONY: all packages build demo test bench fuzz lint format clean install asan tsan soak help

FUZZ_SECONDS ?= 30
SOAK_SECONDS ?= 1800
SOAK_SEED ?= 1
SOAK_FAULTS ?= 1000
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

all: build

packages:
	@bash tools/setup-packages.sh

# CMake's own file: from then on the build notices by itself what has to be configured again.
build/build.ninja: | packages
	@cmake --preset release

build: packages build/build.ninja
	@cmake --build build -j $(JOBS)

demo: build
	@bash tools/demo.sh

test: build
	@ctest --test-dir build -j $(JOBS) --output-on-failure --no-tests=error

bench: build
	@cmake --build build -j $(JOBS) --target benches
	@bash tools/bench.sh build

# Each target for FUZZ_SECONDS under libFuzzer; new inputs go to build-fuzz/corpus, findings to build-fuzz/findings.
fuzz:
	@bash tools/setup-packages.sh fuzz
	@cmake --preset fuzz
	@cmake --build --preset fuzz -j $(JOBS) --target fuzzers
	@bash tools/fuzz.sh build-fuzz $(FUZZ_SECONDS)

lint: build
	@bash tools/setup-packages.sh lint
	@bash tools/lint.sh . build

format:
	@bash tools/setup-packages.sh lint
	@git ls-files '*.c' '*.h' | xargs clang-format -i

asan tsan: packages
	@preset=$$([ $@ = asan ] && echo asan-ubsan || echo tsan); set -e; \
	  cmake --preset $$preset; cmake --build --preset $$preset -j $(JOBS); \
	  ctest --preset $$preset -j $(JOBS) --no-tests=error

# Random requests for SOAK_SECONDS under the sanitizers; a small quarantine, so that resident memory is what is in use.
soak: packages
	@cmake --preset asan-ubsan
	@cmake --build --preset asan-ubsan -j $(JOBS) --target soak
	@ASAN_OPTIONS=quarantine_size_mb=16:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  build-asan-ubsan/soak/soak $(SOAK_SECONDS) $(SOAK_SEED)
	@set -e; for preset in asan-ubsan tsan; do \
	  cmake --preset $$preset; cmake --build --preset $$preset -j $(JOBS) --target test_executor_failover; \
	  HF_FAULTS=$(SOAK_FAULTS) HF_FAULT_SEED=$(SOAK_SEED) build-$$preset/tests/test_executor_failover; done

install: build
	@cmake --install build --prefix $(PREFIX)

clean:
	@rm -rf build build-*/

help:
	@echo "make [all]    install missing packages, build; programs in build/bin"
	@echo "make demo     the whole loop on the small model of the repository, and a plan for DeepSeek-R1"
	@echo "make test     build and run every test"
	@echo "make lint     rooms, foreign headers, sizes, format"
	@echo "make format   clang-format over every source file"
	@echo "make asan     every test under AddressSanitizer and UndefinedBehaviorSanitizer; make tsan: ThreadSanitizer"
	@echo "make soak     random requests for SOAK_SECONDS (1800) and SOAK_FAULTS (1000) lost devices under the sanitizers, everything accounted for"
	@echo "make fuzz     each fuzz target for FUZZ_SECONDS (30)"
	@echo "make bench    the benchmarks"
	@echo "make install  to PREFIX (/usr/local), below DESTDIR"
	@echo "make clean    remove build folders"
