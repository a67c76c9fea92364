# `make` prints the targets. Everything happens in .venv, which the targets make themselves from hashed locks.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
.DEFAULT_GOAL := help
# Airflow starts many processes: each would compile every module anew where compiled ones may not be kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/demo ## Run the nightly run on real photographs on the embedded stack and show the results
	@$(BIN)/image-analyzer local demo

.PHONY: test
test: .venv/dev ## Run every test, in one process more than there are processors, four at most, each with a stack of its own
	@$(BIN)/pytest --numprocesses auto --dist worksteal

.PHONY: lint
lint: .venv/dev ## Check style, import boundaries, types, SQL, Dockerfile and compose file
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint --disable-progress-bar include/sql
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yaml

.PHONY: format
format: .venv/dev ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: up
up: .venv/demo ## Start the embedded stack and Airflow with its UI, and leave them running
	@$(BIN)/image-analyzer local up --airflow

.PHONY: app
app: .venv/apps ## Start the embedded stack and the Streamlit add-on on it
	@$(BIN)/image-analyzer local up
	@eval "$$($(BIN)/image-analyzer local env)" && $(BIN)/image-analyzer init && $(BIN)/image-analyzer app

.PHONY: train
train: .venv/train ## Train the hint model on a folder of class folders: make train DATA=photos/ NAME=flowers
	@$(BIN)/python models/train.py "$(DATA)" --name "$(or $(NAME),hints)" $(OPTIONS)

.PHONY: mlflow
mlflow: .venv/train ## Look at trainings and evaluations: MLflow's own pages
	@mkdir -p .mlflow
	@MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow server --backend-store-uri sqlite:///.mlflow/mlflow.db --host 127.0.0.1 --port 5000

.PHONY: down
down: .venv/demo ## Stop them
	@$(BIN)/image-analyzer local down

.PHONY: status
status: .venv/demo ## Show what runs
	@$(BIN)/image-analyzer local status

.PHONY: benchmarks
benchmarks: .venv/dev ## Print the figures the README claims
	@$(BIN)/python benchmarks/prepare.py
	@$(BIN)/python benchmarks/hints.py
	@$(BIN)/python benchmarks/languages.py
	@$(BIN)/python benchmarks/price.py
	@$(BIN)/python benchmarks/rate.py
	@$(BIN)/python benchmarks/api.py

.PHONY: evaluate
evaluate: .venv/dev ## Measure the caption contract on the golden cases: figures, and a report with plots in build/evaluation
	@$(BIN)/image-analyzer evaluate

.PHONY: fuzz
fuzz: .venv/dev ## Send 2,000 hostile answers through the whole path and check every row that was stored
	@$(BIN)/python evaluation/fuzz.py

.PHONY: faults
faults: .venv/dev ## Break everything in turn under a live Airflow and print what came of it (an hour on two slow cores)
	@$(BIN)/python evaluation/faults.py

.PHONY: distributed
distributed: .venv/dev ## Run 2,000 pictures on several workers without docker, kill one, and see that all is right
	@$(BIN)/python evaluation/distributed.py $(OPTIONS)

.PHONY: scale
scale: .venv/dev ## Measure what orchestration costs with 1,000, 10,000 and 100,000 images (an hour on two slow cores)
	@$(BIN)/python benchmarks/scale.py

.PHONY: audit
audit: .venv/dev ## Look for known vulnerabilities of what is locked (asks the package index)
	@for lock in requirements requirements-apps requirements-train; do \
	  $(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement $$lock.txt || exit 1; done

.PHONY: licences
licences: .venv/dev ## Print the licences of what is locked: make licences > docs/licences.md
	@$(BIN)/python evaluation/licences.py

.PHONY: dictionary
dictionary: .venv/demo ## Write the data dictionary anew, after a change of include/sql
	@$(BIN)/image-analyzer dictionary > docs/data-dictionary.md

.PHONY: lock
lock: .venv/uv ## Solve the requirements anew, after a change of a .in file
	@for name in -bootstrap "" -demo -apps -train -dev; do \
	  constraint=; case $$name in -demo|-apps|-train|-dev) constraint="-c requirements.txt";; esac; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header $$constraint \
	    requirements$$name.in --output-file requirements$$name.txt || exit 1; done

.PHONY: clean-local
clean-local: .venv/demo ## Stop the embedded stack and delete its data
	@$(BIN)/image-analyzer local down --delete

.venv/uv: requirements-bootstrap.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; name it: make demo PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-bootstrap.txt
	@touch $@

.venv/demo: requirements-demo.txt pyproject.toml .venv/uv
	@echo "Installing what the demonstration needs"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements-demo.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.venv/apps: requirements-apps.txt .venv/demo
	@echo "Installing what the add-on and the service need"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements-apps.txt
	@touch $@

.venv/train: requirements-train.txt pyproject.toml .venv/uv
	@echo "Installing what training needs: TensorFlow and MLflow"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements-train.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: requirements-dev.txt pyproject.toml .venv/uv
	@echo "Installing what tests and lint need"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements-dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@ .venv/demo .venv/apps .venv/train
