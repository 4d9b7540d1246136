.DEFAULT_GOAL := help
.PHONY: help messages clients docs run test test-all test-packages campaign fuzz bench request-costs search-costs loadtest restore-drill alone check \
	formatted format lint types security audit sbom requirements roundtrip clean
.NOTPARALLEL:

PYTHON := .venv/bin/python
ARGS ?=
# More processes than cores: many tests wait for a timeout, a server or a thread.
PARALLEL := --numprocesses 4 --dist loadfile
QUICK := not slow and not browser and not brokers
# QUICK leaves out all tests of these folders, so that no process has to import them.
NOT_QUICK := --ignore=tests/browser --ignore=tests/fuzz

# The caller's shell may have these set for other Python projects.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONSTARTUP PYTHONWARNINGS
# Without bytecode, each test process and each worker would compile every module that it imports.
unexport PYTHONDONTWRITEBYTECODE
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

# With exec the signals for make's child reach the supervisor; setpriv ends it when make is killed.
run: .venv/ready-run ## start everything in the foreground on 127.0.0.1, port $PORT or 8000; $DATABASE_URL if set
	@exec setpriv --pdeathsig TERM $(PYTHON) -m local.run

test: .venv/ready-dev ## run tests of every behaviour, in minutes, on their own PostgreSQL; ARGS="-k name" is for pytest
ifeq ($(ARGS),)
	@$(PYTHON) -m pytest $(PARALLEL) -m "$(QUICK)" $(NOT_QUICK) --ignore=tests/faults
	@$(PYTHON) -m pytest -m "$(QUICK)" tests/faults
	@echo "Left out: tests marked slow, browser or brokers. \`make test-all\` runs them too."
else
	@$(PYTHON) -m pytest $(ARGS)
endif

# The tests of faults under load run last and alone: other tests would disturb them.
test-all: .venv/ready-dev ## run all tests; needs the packages that make test-packages installs
	@$(PYTHON) -m tests.support.programs check
	@$(PYTHON) -m pytest $(PARALLEL) --ignore=tests/faults $(COVERAGE)
	@$(PYTHON) -m pytest tests/faults $(COVERAGE_AT_END)

test-packages: .venv/ready-dev ## install the programs that make test-all needs, with apt-get
	@$(PYTHON) -m tests.support.programs install

# With exec the signals for make's child reach it; setpriv ends it when make is killed.
campaign: .venv/ready-dev ## cause random faults under load and verify the ledger; SEED=1 MINUTES=60, ARGS=--help
	@exec setpriv --pdeathsig TERM $(PYTHON) -m tests.support.campaign \
		$(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

fuzz: .venv/ready-dev ## send generated requests to every endpoint, in three runs; SEED=7 and MINUTES=30 set each of them
	@SEED=$(or $(SEED),1) MINUTES=$(or $(MINUTES),10) $(PYTHON) -m pytest tests/fuzz --hypothesis-seed=$(or $(SEED),1) $(ARGS)

bench: .venv/ready-dev ## measure the service and compared services, 7 minutes; ARGS="hot naive" selects rows, ARGS=--help
	@$(PYTHON) -m loadtest.bench $(ARGS)

request-costs: .venv/ready-dev ## measure the most expensive request of each endpoint; ARGS=--all shows all requests
	@$(PYTHON) -m loadtest.request_costs $(ARGS)

search-costs: .venv/ready-dev ## measure every combination of filters on ten million operations; ARGS=--help
	@$(PYTHON) -m loadtest.search_costs $(ARGS)

loadtest: .venv/ready-dev ## load the service for a minute with Locust and judge the result; PROFILE=hot-2000, HOST=http://…
	@PROFILE="$(PROFILE)" HOST="$(HOST)" $(PYTHON) -m loadtest.run $(ARGS)

restore-drill: .venv/ready-dev ## back up under load, damage the ledger, restore the state before it and verify that
	@$(PYTHON) -m local.drill $(ARGS)

check: COVERAGE := --cov=wallets --cov-report=
check: COVERAGE_AT_END := --cov=wallets --cov-append --cov-report=term-missing:skip-covered --cov-fail-under=95
check: formatted lint types security roundtrip alone test-all ## run everything that must pass before a commit

alone: .venv/ready-dev ## run the tests of the ledger with GROUP_COMMIT=off
	@GROUP_COMMIT=off $(PYTHON) -m pytest $(PARALLEL) -m "$(QUICK)" tests/ledger $(ARGS)

docs: .venv/ready-dev ## serve the documentation as a site on http://127.0.0.1:8080; PORT=8081 chooses another port
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs serve --dev-addr 127.0.0.1:$(or $(PORT),8080)

formatted: .venv/ready-dev
	@$(PYTHON) -m ruff format --check .

format: .venv/ready-dev ## format the code
	@$(PYTHON) -m ruff format .

lint: .venv/ready-dev ## check the code with ruff
	@$(PYTHON) -m ruff check .

types: .venv/ready-dev ## check the types with mypy
	@SECRET_KEY=only-for-the-type-checker-which-imports-the-settings \
		DATABASE_URL=postgres://none@localhost/none $(PYTHON) -m mypy

# Neither uses the network. .secrets.baseline lists text that only looks like a secret.
security: .venv/ready-dev ## search for weaknesses with bandit and for secrets with detect-secrets
	@$(PYTHON) -m bandit --quiet --configfile pyproject.toml --recursive walletsvc wallets local
	@git ls-files -z --cached --others --exclude-standard | \
		xargs -0 $(PYTHON) -m detect_secrets.pre_commit_hook --no-verify --baseline .secrets.baseline

audit: .venv/ready-dev ## check the pinned packages for known vulnerabilities; needs the network
	@$(PYTHON) -m pip_audit --strict --require-hashes --disable-pip --requirement requirements-dev.txt

requirements: .venv/ready-dev ## pin the packages of requirements*.in with hashes; ARGS=--upgrade takes the newest
	@for name in requirements requirements-uv requirements-sbom requirements-profiler requirements-local requirements-dev; do \
		$(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: --generate-hashes --no-strip-extras \
			--no-emit-index-url --custom-compile-command "make requirements" \
			--output-file $$name.txt $$name.in $(ARGS) || exit; done

# From a virtual environment like the image's. It does not list the packages of the base image.
sbom: .venv/ready-dev ## write sbom.json: the packages of the image and their licences, as CycloneDX
	@rm -rf .local/sbom && python3 -m venv --without-pip .local/sbom
	@$(PYTHON) -m pip --python=.local/sbom/bin/python install --quiet --disable-pip-version-check \
		--require-hashes --only-binary=:all: --requirement=requirements.txt
	@$(PYTHON) -m cyclonedx_py environment --pyproject=pyproject.toml --output-reproducible --no-validate \
		--output-file sbom.json .local/sbom/bin/python

roundtrip: .venv/ready-dev ## apply the changelogs, roll all of them back and apply them again
	@$(PYTHON) -m local.roundtrip

messages: .venv/ready-dev ## collect the texts of the pages and compile their translations; needs gettext
	@cd wallets && for command in "makemessages --locale ru --no-location --no-obsolete --ignore=admin* --ignore=api/*" \
			compilemessages; do \
		SECRET_KEY=only-to-read-the-settings-which-nothing-else-needs-here DATABASE_URL=postgres://none@localhost/none \
			../$(PYTHON) ../manage.py $$command; done

clients: .venv/ready-dev ## generate the models and exceptions of the Python client from the OpenAPI document
	@SECRET_KEY=only-to-read-the-settings-which-nothing-else-needs-here DATABASE_URL=postgres://none@localhost/none \
		$(PYTHON) -m local.python_client

clean: ## remove the virtual environment, caches, and the local database with its data
	@test ! -e .local/postgres/lock || flock --nonblock .local/postgres/lock true || \
		{ echo "walletsvc is running: stop it first"; exit 1; }
	rm -rf .venv .local .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready-run: requirements-local.txt
	@sh local/install.sh run

.venv/ready-dev: requirements-dev.txt
	@sh local/install.sh dev
