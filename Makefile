# The two commands are `make demo` and `make test`; CONTRIBUTING.md explains the others.

# The first interpreter that runs and is supported: a name on the PATH may be a shim that does not.
PYTHON ?= $(shell for name in python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& { echo $$name; break; }; done)

BIN := .venv/bin
INSTALLED := .venv/installed

# Generated code demands a protobuf at least as new as its generator's, so the generator is the
# oldest one that pyproject.toml supports, in an environment of its own.
PROTO_BIN := build/proto/bin
PROTO_TOOLS := grpcio-tools==1.80.0 protobuf==6.33.6 mypy-protobuf==3.7.0

.PHONY: demo test check proto bench clean help

help:
	@echo 'make demo    train, serve and query a generated shop (first run installs into .venv)'
	@echo 'make test    run the test suite'
	@echo 'make check   lint, formatting, types, import contracts, README tables'
	@echo 'make proto   regenerate the code under protos/'
	@echo 'make bench   time the two commands above, then regenerate the tables of README.md'
	@echo 'make clean   remove .venv and everything built'

demo: $(INSTALLED)
	$(BIN)/recsys demo

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m benchmarks.tables --check

proto: $(PROTO_BIN)/protoc-gen-mypy
	PATH="$(PROTO_BIN):$$PATH" $(PROTO_BIN)/python -m grpc_tools.protoc --proto_path=. \
		--python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
		protos/recsys/v1/recommender.proto protos/recsys/v1/admin.proto

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.two_commands
	$(BIN)/python -m benchmarks.tables --write

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { \
		echo 'make: needs Python 3.11 or 3.12 on the PATH, found neither;' \
			'name one with: make PYTHON=/path/to/python3.12' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

$(PROTO_BIN)/protoc-gen-mypy: Makefile
	$(PYTHON) -m venv build/proto
	$(PROTO_BIN)/python -m pip install $(PROTO_TOOLS)
	@touch $@
