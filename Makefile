# One command each; `make help` explains them.
PYTHON ?= python3
PROJECT ?= project.toml
APP_IP ?= 127.0.0.1
APP_HOSTS ?=
APP_PAGES ?= 4
PAGE_PORT ?= 0
export PROJECT

BIN := .venv/bin/python
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help run lab app page test test-long check bench clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PROJECT=projects/animals.toml make run       runs another project file (also lab, app, page)"
	@echo "  make app APP_PAGES=8 APP_HOSTS=lab-pc        lets 8 visitors in at a time, also under this machine's name"
	@echo "  make run TORCH_INDEX=<address>               installs another build of PyTorch: see README.md"

run: $(INSTALLED)  ## Install if needed, run notebooks 01-08 on project.toml, say how good the model is
	@$(BIN) notebooks/run.py

lab: $(INSTALLED)  ## Open the notebooks in JupyterLab, 01 first
	@PYTHONWARNINGS="ignore::FutureWarning,ignore::DeprecationWarning" $(BIN) -m jupyterlab \
		--LabApp.default_url=/lab/tree/notebooks/01_download.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

app: $(INSTALLED)  ## Serve notebooks/app.ipynb as a page, for this machine alone (APP_IP=0.0.0.0: for all who reach it)
	@$(BIN) -m voila notebooks/app.ipynb --Voila.ip=$(APP_IP) \
		--VoilaConfiguration.file_allowlist="[]" --VoilaConfiguration.file_denylist="['.*']" \
		--VoilaConfiguration.allow_template_override=NO --VoilaConfiguration.allow_theme_override=NO \
		--VoilaConfiguration.multi_kernel_manager_class=utils.app.visitors.LimitedKernels \
		--LimitedKernels.most=$(APP_PAGES) --MappingKernelManager.cull_idle_timeout=60 --MappingKernelManager.cull_interval=10 \
		--Voila.identity_provider_class=utils.app.visitors.NamedHosts --NamedHosts.names="$(APP_HOSTS)"

page: $(INSTALLED)  ## Write the page that runs the model in a visitor's browser, and show it (PAGE_PORT=8123: on that port)
	@$(BIN) -m utils.export --port $(PAGE_PORT)

PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)  ## Install if needed, run every test but the long ones on up to 4 cores
	@$(BIN) -m pytest $(PARALLEL) -m "not long"

test-long: $(INSTALLED)  ## Install if needed, run the long tests
	@$(BIN) -m pytest $(PARALLEL) -m long

check: $(INSTALLED)  ## Check the form of code, notebooks and pages, and who imports whom
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check .
	@$(dir $(BIN))lint-imports --no-cache
	@$(BIN) -W error::UserWarning -m pytest tests/test_style.py tests/test_house.py

bench: $(INSTALLED)  ## Run the benchmarks, each of which prints what it measured (long)
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN) "$$script" || exit 1; done

clean:  ## Remove caches and reports, never data or models
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +

# TORCH_INDEX=<the address that pytorch.org's "Get started" page shows after --index-url> picks another build of torch.
$(INSTALLED): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this one is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	@$(BIN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv (a few minutes the first time, up to 6 GB with torch) ..."
	@if [ -n "$(TORCH_INDEX)" ]; then \
		$(BIN) -m pip install --quiet --disable-pip-version-check torch torchvision -c constraints.txt --index-url "$(TORCH_INDEX)"; fi
	@$(BIN) -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@
