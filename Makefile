# Every target creates what it needs: `make speak TEXT="..."` and `make test` work on a fresh clone
# with Python >= 3.10 and a C++20 compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One place for the torch that reference encoding and the tests use; any CPU or CUDA build will do.
TORCH ?= torch==2.13.0
TEXT ?=
OUT ?= speech.wav
VOICE ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

SOURCES := pyproject.toml CMakeLists.txt $(shell find csrc cmake python -type f \
	-not -name '*.pyc' -not -name '*.so' 2>/dev/null)

.PHONY: help speak test test-cpp test-python test-speech test-asan test-tsan test-gpu test-gpu-sanitize cuda lint format tidy wheel clean

help:
	@echo 'make speak TEXT="..." [OUT=speech.wav] [VOICE=slt]   speak with the packaged demo model'
	@echo 'make test        everything a change must pass without a GPU: C++, Python and speech tests'
	@echo 'make test-speech text to speech to text through the native path, word error rate printed'
	@echo 'make test-asan   C++ tests under the address and undefined-behaviour sanitizers'
	@echo 'make test-tsan   executor and API tests under the thread sanitizer'
	@echo 'make cuda        compile the CUDA backend (needs nvcc, no GPU)'
	@echo 'make test-gpu    everything that needs a GPU, with the tools that the machine has;'
	@echo '                 make test-gpu-sanitize: under compute-sanitizer too'
	@echo 'make lint        clang-format, ruff, mypy, include lint;  make tidy: clang-tidy'
	@echo 'make wheel       build a wheel and import it in a fresh environment'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The package alone: enough to speak with a stored voice.
$(VENV)/.package: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet .
	touch $@

# What the tests need besides; torch first, so that no other package chooses its build.
$(VENV)/.test-tools: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet '.[test]'
	touch $@ $(VENV)/.package

# As it is: neither make nor the shell may read a text's quotes and dollars.
export SPEAK_TEXT = $(value TEXT)
speak: $(VENV)/.package
	@test -n "$$SPEAK_TEXT" || { echo 'usage: make speak TEXT="..." [OUT=speech.wav] [VOICE=slt]'; exit 2; }
	@$(BIN)/higgs-rt speak -o "$(OUT)" $(if $(VOICE),--voice "$(VOICE)") -- "$$SPEAK_TEXT"

test: test-cpp test-python test-speech

# $(call cmake_build,build directory,configure options)
define cmake_build
	$(BIN)/cmake -S . -B $(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DHIGGS_RT_TESTS=ON -DHIGGS_RT_WERROR=ON $(2) > $(1).configure.log || { cat $(1).configure.log; exit 1; }
	$(BIN)/cmake --build $(1) -j $(JOBS)
endef

# $(call cmake_tests,build directory,configure options,ctest options)
define cmake_tests
	$(call cmake_build,$(1),$(2))
	$(BIN)/ctest --test-dir $(1) -j $(JOBS) --output-on-failure $(3)
endef

test-cpp: $(VENV)/.test-tools
	@mkdir -p build
	$(call cmake_tests,build/release,)

# Besides the package, the tests install and use the C++ library.
test-python: $(VENV)/.test-tools $(VENV)/.package
	@mkdir -p build
	$(call cmake_build,build/release,)
	HIGGS_RT_BUILD_DIR=build/release $(BIN)/python -m pytest -m 'not speech'

test-speech: $(VENV)/.test-tools $(VENV)/.package
	$(BIN)/python -m pytest -m speech -s

test-asan: $(VENV)/.test-tools
	@mkdir -p build
	$(call cmake_tests,build/asan,-DHIGGS_RT_SANITIZE=address$(comma)undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo,)

test-tsan: $(VENV)/.test-tools
	@mkdir -p build
	$(call cmake_tests,build/tsan,-DHIGGS_RT_SANITIZE=thread -DCMAKE_BUILD_TYPE=RelWithDebInfo,-R '^(core|executor|api)$$')

cuda: $(VENV)/.test-tools
	$(BIN)/python -m pip install --quiet --no-deps 'nvidia-cublas>=13,<14'
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DHIGGS_RT_CUDA=ON -DHIGGS_RT_TESTS=ON -DHIGGS_RT_BENCH=ON -DHIGGS_RT_WERROR=ON \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python
	$(BIN)/cmake --build build/cuda -j $(JOBS)

test-gpu:
	tests/gpu/run

test-gpu-sanitize:
	SANITIZE=1 tests/gpu/run

lint: $(VENV)/.test-tools
	git ls-files '*.h' '*.c' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/lint/check_includes.py

format: $(VENV)/.test-tools
	git ls-files '*.h' '*.c' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tidy: test-cpp
	git ls-files 'csrc/*.cpp' | grep -v -e /cuda/ -e /bindings/ -e /bench/ -e /nvinfer_ | \
		xargs $(BIN)/clang-tidy -p build/release --quiet

wheel: $(BIN)/python
	rm -rf dist build/wheel-env
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel-env
	build/wheel-env/bin/python -m pip install --quiet dist/*.whl
	cd build/wheel-env && bin/higgs-rt info && bin/higgs-rt speak "A wheel that speaks." -o wheel.wav

clean:
	rm -rf build dist $(VENV)

comma := ,
