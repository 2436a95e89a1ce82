# kg-targets: `make demo` and `make test` set themselves up; `make help` lists everything.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := train,dicom,scispacy,notebooks,browse,cluster,dev
INSTALLED := $(VENV)/.installed
CORE := .venv-core
CORE_INSTALLED := $(CORE)/.installed
# Tests run in as many processes as there are cores, four at most: each needs up to 2 GB.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile
# What needs no torch: all of kg_targets but its losses, builds, audits and demo data; questions, scores and leaks.
CORE_TESTS := tests/test_rooms.py tests/kg_targets tests/pipelines tests/training/vqa tests/training/leakage \
	--ignore=tests/kg_targets/losses --ignore=tests/pipelines/experiments --ignore-glob='*test_training*'

DATASET ?=
SPLIT ?= all
DATA_ROOT ?=
OUT ?= build/$(DATASET)
ONTOLOGY ?= seed
SCORER ?= ontology
TEACHER ?=
EXTRACTOR ?= dictionary
JOBS ?=
ARGS ?=
STORE ?=
GRID ?= $(DATASET)
# Recipes read these from the environment, quoted there: values may hold blanks. ARGS is shell text, split into words.
export DATASET SPLIT DATA_ROOT OUT ONTOLOGY SCORER TEACHER EXTRACTOR JOBS STORE GRID PYTHON

DEMO := build/demo
CONFIG := training/configs/nb_clip_demo.yaml
ROOT_OPTION := $${DATA_ROOT:+--data-root "$$DATA_ROOT"}
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: help setup demo test targets tables vqa table5 table5all fig6 card bench bench-scale bench-gpu lint clean

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(INSTALLED) ## Create .venv and install everything into it (once)

$(INSTALLED): pyproject.toml constraints.txt
	@command -v "$$PYTHON" >/dev/null || { echo "error: $$PYTHON not found: set PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$$PYTHON" -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "error: make setup needs Python 3.11 or 3.12, this is %d.%d: set PYTHON=python3.12" % sys.version_info[:2])' || exit 2
	echo "Installing into $(VENV) (several minutes and about 6 GB the first time) ..."
	[ -x $(BIN)/python ] || "$$PYTHON" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

demo: $(INSTALLED) ## The whole idea on embedded data: targets, training, evaluation, target card
	@echo "1/5  Demo data: drawn images and invented captions"
	$(BIN)/kg-targets demo-data --out $(DEMO)/data
	echo "2/5  Soft targets: captions -> concepts -> graph -> factors"
	$(BIN)/kg-targets build demo --data-root $(DEMO)/data --out $(DEMO)
	echo "3/5  Training NB-CLIP twice, without and with knowledge"
	$(LAUNCH) training/run.py --config $(CONFIG) --loss.name info_nce --output $(DEMO)/runs/infonce --overwrite true
	$(LAUNCH) training/run.py --config $(CONFIG) --output $(DEMO)/runs/sm --overwrite true
	echo "4/5  Evaluation on the test split"
	$(BIN)/kg-targets evaluate retrieval --store $(DEMO)/test --data-root $(DEMO)/data --run $(DEMO)/runs/infonce --run $(DEMO)/runs/sm --out $(DEMO)/report
	echo "5/5  Target card"
	$(BIN)/kg-targets card $(DEMO)/test --data-root $(DEMO)/data --out $(DEMO)/report/card.html
	echo "Done. Look at $(DEMO)/report/: card.html, contact_sheet.png, target_block.png, retrieval.md; and at notebooks/."

$(CORE_INSTALLED): pyproject.toml constraints-core.txt
	@[ -x $(CORE)/bin/python ] || "$$PYTHON" -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-core.txt --editable '.[browse]' pytest pytest-timeout pytest-xdist hypothesis
	touch $@

test: $(INSTALLED) $(CORE_INSTALLED) ## Every test (no network, no GPU); the core again without torch on numpy 2
	@export OMP_NUM_THREADS="$${OMP_NUM_THREADS:-1}"
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)
	echo "The core without torch and spaCy, on numpy 2:"
	$(CORE)/bin/python -m pytest --quiet $(PARALLEL) $(CORE_TESTS) $(ARGS)

targets: $(INSTALLED) ## Target stores: DATASET=name [SPLIT=all] [DATA_ROOT=data/name] [OUT=build/name] [ONTOLOGY=] [SCORER=] [TEACHER=] [ARGS=]
	@[ -n "$$DATASET" ] || { echo "error: say which data set: make targets DATASET=demo (see: $(BIN)/kg-targets datasets)" >&2; exit 2; }
	[ "$$DATASET" != demo ] || $(BIN)/kg-targets demo-data --out "$${DATA_ROOT:-$(DEMO)/data}"
	$(BIN)/kg-targets build "$$DATASET" --split "$$SPLIT" $(ROOT_OPTION) $(if $(and $(filter teacher,$(SCORER)),$(filter file,$(origin OUT))),,--out "$$OUT") --ontology "$$ONTOLOGY" --scorer "$$SCORER" $${TEACHER:+--teacher "$$TEACHER"} --extractor "$$EXTRACTOR" $(ARGS)

card: $(INSTALLED) ## HTML card of a store: STORE=build/demo/test [DATA_ROOT=folder of the images]
	@[ -n "$$STORE" ] || { echo "error: say which store: make card STORE=build/demo/test" >&2; exit 2; }
	$(BIN)/kg-targets card "$$STORE" --out "$$(dirname "$$STORE")/report/card-$$(basename "$$STORE").html" $(ROOT_OPTION) $(ARGS)

EXPERIMENT = $(BIN)/kg-targets tables
EXPERIMENT_OPTIONS = $(ROOT_OPTION) $(if $(filter-out file,$(origin OUT)),--out "$$OUT") $${JOBS:+--jobs "$$JOBS"} $(ARGS)

tables: $(INSTALLED) ## Ablation tables: DATASET=demo|medpix [GRID=medpix_search] [DATA_ROOT=] [OUT=] [JOBS=] [ARGS="--only row --dry-run"]
	@[ -n "$$DATASET" ] || { echo "error: say which grid: make tables DATASET=demo (they are in pipelines/grids)" >&2; exit 2; }
	[ "$$DATASET" != demo ] || $(BIN)/kg-targets demo-data --out "$${DATA_ROOT:-$(DEMO)/data}"
	$(EXPERIMENT) "$$GRID" $(EXPERIMENT_OPTIONS)

vqa: $(INSTALLED) ## Med-VQA tables: GRID=vqa_rad [DATA_ROOT=] [OUT=] [JOBS=] [ARGS="--only row --stage finetune --dry-run"]
	@[ -n "$$GRID" ] || { echo "error: say which grid: make vqa GRID=vqa_rad (they are pipelines/grids/vqa_*.yaml)" >&2; exit 2; }
	$(EXPERIMENT) "$$GRID" $(EXPERIMENT_OPTIONS)

table5: $(INSTALLED) ## Soft labels of different teachers beside AMiF's Table 5: [DATA_ROOT=] [OUT=] [JOBS=] [ARGS=]
	@$(EXPERIMENT) vqa_table5 $(EXPERIMENT_OPTIONS)

table5all: $(INSTALLED) ## The same on all four data sets of the paper's table, and their mean: [JOBS=] [ARGS=]
	@for grid in table5_slake table5_path_vqa table5_med_2019 table5; do $(EXPERIMENT) "$$grid" $${JOBS:+--jobs "$$JOBS"} $(ARGS); done

fig6: $(INSTALLED) ## λ of the soft labels as in AMiF's Fig. 6, with its plot: [DATA_ROOT=] [OUT=] [JOBS=] [ARGS=]
	@$(EXPERIMENT) vqa_fig6 $(EXPERIMENT_OPTIONS)

bench: $(INSTALLED) ## Figures of the offline half on the demo's captions: [ARGS="--captions FILE --ontology SPEC"]
	@[ -f $(DEMO)/data/demo.json ] || $(BIN)/kg-targets demo-data --out $(DEMO)/data
	$(BIN)/python benchmarks/offline.py --out build/bench.json $(ARGS)

bench-gpu: $(INSTALLED) ## What is measured on a card, in at most 8 minutes, without a network: [ARGS="--minutes 4"]
	@PYTHONPATH=. $(BIN)/python benchmarks/gpu.py $(ARGS)

bench-scale: $(INSTALLED) ## Growth of a build with its captions, projected to millions: [ARGS="--sizes 8192,65536"] (hours, 3 GB)
	@PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scale.py --out build/scale.json $(ARGS)

lint: $(INSTALLED) ## ruff, mypy and who may import whom
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy

clean: ## Remove what was built (not .venv, not your data)
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
