# Two commands do everything: `make demo` and `make test`. Both set up what they need in .build/ and reuse it.
#
#   make demo                                   simulated micrographs -> 2D classes, in a real Scipion project
#   make demo DATA=FOLDER [PIXEL_SIZE=1.5] [COORDINATES=FILE] [DIAMETER=120]   the same on your own micrographs;
#                                               without coordinates, particles are found by their diameter first
#   make gui                                    open the demo's project in Scipion's window
#   make test                                   engine tests and Scipion tests
#   make clean                                  remove .build/
#
# PYTHON=...   the Python that the environments are made from
# TORCH=cuda   install PyTorch's CUDA build
# PIP_ARGS=... more arguments for pip when the engine's environment is made (an index, a folder of wheels)

PYTHON ?= python3
TORCH ?= cpu
PIP_ARGS ?=
DATA ?=
PIXEL_SIZE ?=
COORDINATES ?=
DIAMETER ?=

BUILD := $(CURDIR)/.build
ENGINE_SOURCES := $(shell find siamese2d/engine/siamese2d_engine -name '*.py' -o -name '*.safetensors')

export SCIPION_HOME := $(BUILD)/home
export SCIPION_USER_DATA := $(BUILD)/projects
export SCIPION_NOTIFY := False
export SCIPION_TEST_NOSYNC := True
export SIAMESE2D_TORCH := $(TORCH)
export SIAMESE2D_PIP_ARGS := $(PIP_ARGS)
export PATH := $(BUILD)/scipion/bin:$(PATH)

SCIPION := $(BUILD)/scipion/bin/python -m scipion
ENGINE_ENV := $(shell sed -n 's/^__version__ = "\(.*\)"/$(subst /,\/,$(BUILD))\/home\/software\/em\/siamese2d_venv-\1\/env/p' siamese2d/engine/siamese2d_engine/__init__.py)

SCREEN := $(if $(DISPLAY),,$(if $(shell command -v xvfb-run),xvfb-run -a,))

.PHONY: demo gui test engine-test scipion-test setup clean

demo: setup
	$(SCIPION) python demo/run.py --engine "$(ENGINE_ENV)/bin/siamese2d-engine" --work "$(BUILD)/demo" \
	    --data "$(DATA)" --pixel-size "$(PIXEL_SIZE)" --coordinates "$(COORDINATES)" --diameter "$(DIAMETER)"

gui: setup
	cd $(BUILD) && $(SCIPION) project siamese2d_demo

test: engine-test scipion-test

engine-test: setup
	cd siamese2d/engine/tests && $(ENGINE_ENV)/bin/python -m pytest -q -p no:cacheprovider

# Without a screen, windows are tested on a virtual one where there is one (Debian: xvfb, xauth), and else skipped.
scipion-test: setup
	cd $(BUILD) && NO_COLOR=1 $(SCREEN) $(SCIPION) tests siamese2d

setup: $(BUILD)/engine.done

$(BUILD)/scipion.done: setup.py
	@$(PYTHON) demo/check_system.py
	@echo "Setting up Scipion in .build/scipion (about a minute) ..."
	@mkdir -p $(SCIPION_HOME)/software/bindings $(SCIPION_USER_DATA)
	$(PYTHON) -m venv $(BUILD)/scipion
	$(BUILD)/scipion/bin/python -m pip install -q scipion-pyworkflow==3.11.7 scipion-em==3.11.1 scipion-app==3.8.3
	$(BUILD)/scipion/bin/python -m pip install -q --no-deps -e .
	@touch $@

$(BUILD)/engine-environment.done: siamese2d/engine/pyproject.toml $(BUILD)/scipion.done
	@echo "Setting up the engine's environment through Scipion (a few minutes, most of it PyTorch) ..."
	cd $(BUILD) && $(SCIPION) installb siamese2d_venv
	@touch $@

# The environment holds a copy of the engine: renew it when a source file has changed, and what it needs with it.
$(BUILD)/engine.done: $(BUILD)/engine-environment.done $(ENGINE_SOURCES)
	$(ENGINE_ENV)/bin/python -m pip install -q --no-deps --force-reinstall siamese2d/engine
	$(ENGINE_ENV)/bin/python -m pip install -q $(PIP_ARGS) "siamese2d/engine[test]"
	@touch $@

clean:
	rm -rf $(BUILD)
