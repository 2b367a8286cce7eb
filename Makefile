PYTHON ?= python3
BIN := .venv/bin
# One test process for each core, at most four: each holds a TensorFlow of its own. "worksteal" keeps the tests of a
# file together as far as the cores allow, so that a module's fixtures are made once.
PARALLEL := -n logical --maxprocesses 4 --dist worksteal

.PHONY: demo train-demo test slow fuzz lint types oldest newest docs golden bench bench-quick clean

demo: .venv/installed  ## the shipped model on the music that ships here: a library, questions, the server
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/demo.sh

train-demo: .venv/installed  ## every stage from that music to a served model, in some three minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" tools/train_demo.sh

test: .venv/installed  ## the tests
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(ARGS)

lint: .venv/lint  ## style and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/rumdl check .
	$(BIN)/lint-imports

types: .venv/lint  ## static types; Python 3.10 has no NumPy whose arrays may be named without their parameters
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then $(BIN)/mypy; \
	else echo "not checked: types need the NumPy of Python 3.11 or later"; fi

fuzz: .venv/installed  ## wrong input in bulk, two minutes, from a seed that is printed: ARGS="--seed 7 --seconds 600"
	PYTHONPATH=tests:. $(BIN)/python -m fuzz $(ARGS)

oldest: .venv/lint  ## TensorFlow 2.15, Keras 2.15, tensorflow-addons and tensorflow-io: the rooms they touch
	$(BIN)/tox run -e oldest -- -m "not slow" $(PARALLEL) $(ARGS)

newest: .venv/lint  ## Python 3.12, if it is here, for the other rooms
	$(BIN)/tox run -e newest -- -m "not slow" $(PARALLEL) $(ARGS)

slow: .venv/installed  ## the tests that take minutes: a browser on the page, two hours of sound
	$(BIN)/python -m pytest -m slow $(PARALLEL) $(ARGS)

docs: .venv/docs  ## the documentation site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

golden: .venv/lint  ## make the golden files again, in the oldest environment
	$(BIN)/tox exec -e oldest -- python tools/make_golden_loss.py
	$(BIN)/tox exec -e oldest -- python tools/make_golden_decoder.py

bench: .venv/installed  ## every speed with its peers and bars, side by side: ARGS="serving --music ~/Music"
	$(BIN)/python -m tools.bench --json build/bench.json $(ARGS)

bench-quick: .venv/installed  ## the same in some five minutes
	$(BIN)/python -m tools.bench --quick --json build/bench-quick.json $(ARGS)

clean:
	rm -rf .venv .tox demo build *.egg-info

.venv/installed: setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,beets,spark,milvus,beam]"
	touch $@

.venv/lint: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[lint]"
	touch $@

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@
