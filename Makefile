PYTHON ?= python3
DEVICE := .venv
EXPORT := .venv-export
OLDEST := .venv-oldest
OLDEST_ONNXRUNTIME := 1.23.2
WORK ?= build/demo-model
MINUTES ?= 60
BEFORE ?= HEAD
PIP := -m pip install --quiet --disable-pip-version-check
ACCURACY = PYTHONPATH=bench $(EXPORT)/bin/python -m accuracy
DEMO_MODEL = PYTHONPATH=export:bench $(EXPORT)/bin/python -m demo_model
ACCURACY_DATA = --tasks $(WORK)/tasks
ACCURACY_AGAIN := build/accuracy/results
SOURCES := pyproject.toml $(shell find runtime export -type f -not -path '*/__pycache__/*' -not -path '*/tasks/*')

.PHONY: help demo fleet-demo page watch-demo test test-page test-device test-oldest test-export test-arm same-prompts docs dist lint demo-model demo-tasks ship-demo-model bench-demo bench-backbones bench-speed bench-precision bench-memory bench-at-work bench-page bench-accuracy bench-accuracy-full bench-textile bench-samples develop-models bench-develop bench-selection bench-price bench-heads bench-known bench-strangers bench-one-look bench-fleet bench-fleet-memory soak soak-watch clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEVICE)/installed  ## install the device side, and tune the shipped model on shipped pictures
	$(DEVICE)/bin/sharpzo-edge demo

fleet-demo: $(DEVICE)/fleet-installed  ## three boards on this machine tune one prompt, beside all pictures in one place
	$(DEVICE)/bin/sharpzo-edge fleet demo

page: $(DEVICE)/page-installed  ## label, tune and look in a browser, on the demo's pictures in ./sharpzo-demo
	$(DEVICE)/bin/sharpzo-edge page --open

watch-demo: $(DEVICE)/watch-installed  ## pictures arrive in a folder, are labelled, and a broker on this machine hears of it
	PYTHONPATH=bench $(DEVICE)/bin/python bench/watch_demo.py

test: test-device test-oldest test-export  ## all tests: without torch first, then with it

test-device: $(DEVICE)/tests-installed  ## the device's tests, in an environment without torch
	$(DEVICE)/bin/python -m pytest tests --ignore tests/export --ignore tests/browser

test-page: $(DEVICE)/browser-installed build/npm/installed  ## the page in a real browser, on a phone's screen and a desk's; and a classifier
	$(DEVICE)/bin/python -m pytest tests/browser

test-oldest: $(OLDEST)/installed  ## the same bundles and prompts on the oldest onnxruntime allowed
	$(OLDEST)/bin/python -m pytest tests -m oldest_onnxruntime --ignore tests/export --ignore tests/browser

test-export: $(EXPORT)/recipe-installed  ## the export's tests, in an environment with torch
	$(EXPORT)/bin/python -m pytest tests/export

test-arm: $(DEVICE)/dist-installed  ## the wheel on emulated arm64 machines, and docs/boards.md (needs root)
	PYTHONPATH=runtime:bench $(DEVICE)/bin/python -m boards.run

same-prompts: $(DEVICE)/installed  ## do this tree and another revision make the same prompt files? (BEFORE=REVISION)
	rm -rf build/before && git worktree prune && git worktree add --detach build/before $(BEFORE)
	$(PYTHON) -m venv build/before/.venv && build/before/.venv/bin/python $(PIP) ./build/before
	$(DEVICE)/bin/python bench/same_prompts.py build/before/.venv/bin/sharpzo-edge $(DEVICE)/bin/sharpzo-edge

docs: $(DEVICE)/installed  ## write docs/cli.md from the commands
	PYTHONPATH=runtime $(DEVICE)/bin/python bench/cli_page.py

dist: $(DEVICE)/dist-installed  ## build wheel and sdist into dist/, and check them: contents, an empty environment, the demo
	PYTHONPATH=runtime:bench $(DEVICE)/bin/python bench/dist.py

lint: $(DEVICE)/lint-installed  ## formatting rules and types
	$(DEVICE)/bin/ruff check .
	$(DEVICE)/bin/mypy

demo-model: $(EXPORT)/recipe-installed  ## train a small CLIP from npm's emoji packages, and its tasks (an hour; WORK=folder)
	$(DEMO_MODEL).recipe --work $(WORK)

demo-tasks: $(DEVICE)/recipe-installed  ## render the demo model's few-shot tasks alone, without torch (WORK=folder)
	PYTHONPATH=export $(DEVICE)/bin/python -m demo_model.prepare --work $(WORK)

ship-demo-model: demo-model  ## put that model and its first task into the package, and write docs/demo-model.md
	$(DEMO_MODEL).page --work $(WORK)
	$(DEMO_MODEL).ship --work $(WORK)

bench-demo: $(DEVICE)/installed  ## run the demo with three seeds, and write the README's table
	$(DEVICE)/bin/python bench/demo.py

bench-backbones: $(EXPORT)/installed  ## export and tune the paper's backbones (random weights), with parity
	$(EXPORT)/bin/python bench/backbones.py

bench-speed: $(EXPORT)/installed  ## time a query beside torch's (ViT-B-16, random weights), and write docs/speed.md
	PYTHONPATH=bench $(EXPORT)/bin/python -m speed.run

bench-precision: $(EXPORT)/recipe-installed demo-model  ## what int8 and int4 weights cost and save, and write docs/precision.md (WORK=folder)
	$(EXPORT)/bin/python bench/precision.py --work $(WORK)

bench-memory: $(EXPORT)/installed  ## watch whole tunes of the paper's backbones, and write docs/memory.md
	PYTHONPATH=bench $(EXPORT)/bin/python -m memory.run

bench-at-work: $(EXPORT)/installed  ## how fast pictures are labelled, also with the one ONNX file, and docs/at-work-speed.md
	PYTHONPATH=bench $(EXPORT)/bin/python bench/at_work.py

bench-page: $(EXPORT)/installed  ## what the page and its helper take, and the section of docs/memory.md
	PYTHONPATH=bench $(EXPORT)/bin/python -m memory.run_page

bench-accuracy: $(EXPORT)/recipe-installed demo-tasks  ## redo some of the accuracy runs beside those in the repository (under 30 minutes)
	$(ACCURACY).harness.run run --subset $(ACCURACY_DATA) --results $(ACCURACY_AGAIN) --chosen bench/results/accuracy
	$(ACCURACY).report.page --results $(ACCURACY_AGAIN) --page build/accuracy/accuracy.md --against bench/results/accuracy

bench-accuracy-full: $(EXPORT)/recipe-installed demo-tasks  ## every method, task, shots and seed (hours), and write docs/accuracy.md
	$(ACCURACY).harness.run choose $(ACCURACY_DATA)
	$(ACCURACY).harness.run run $(ACCURACY_DATA)
	$(ACCURACY).report.plot
	$(ACCURACY).report.page

bench-textile: $(DEVICE)/installed  ## type the commands of docs/textile.md, and write what they print
	PYTHONPATH=bench $(DEVICE)/bin/python bench/textile.py

bench-samples: $(DEVICE)/installed  ## type the commands of docs/results.md, and write what they print
	PYTHONPATH=bench $(DEVICE)/bin/python bench/samples.py

develop-models: $(EXPORT)/recipe-installed  ## make the development set: two small CLIPs and six tasks (two hours; WORK=folder)
	PYTHONPATH=export:bench $(EXPORT)/bin/python -m develop.recipe --work $(WORK)

bench-develop: develop-models bench-selection bench-price bench-heads bench-known  ## every study on the development set, edge's defaults among them (many hours; WORK=folder)
	PYTHONPATH=export:bench $(EXPORT)/bin/python -m develop.defaults --work $(WORK)

bench-selection: develop-models  ## compare ways to choose an evaluation, on the development set (an hour; WORK=folder)
	PYTHONPATH=export:bench $(EXPORT)/bin/python -m develop.selection --work $(WORK)

bench-price: develop-models  ## compare shapes of a round at equal cost, on the development set (WORK=folder)
	PYTHONPATH=export:bench $(EXPORT)/bin/python -m develop.price --work $(WORK)

bench-fleet: $(EXPORT)/installed  ## fleets of one and two members, simulated and on paper, and write docs/fleet.md (under 5 minutes)
	OPENBLAS_NUM_THREADS=1 PYTHONPATH=bench $(EXPORT)/bin/python -m fleet.run

bench-fleet-memory: $(DEVICE)/fleet-installed  ## what a member of a fleet takes, in docs/fleet-guide.md (BUNDLE=folder of ViT-B-16)
	PYTHONPATH=bench $(DEVICE)/bin/python bench/fleet_memory.py --bundle $(BUNDLE)

bench-one-look: $(DEVICE)/fleet-installed  ## what one look at the linear model loses, in docs/fleet-guide.md
	PYTHONPATH=bench $(DEVICE)/bin/python bench/one_look.py

bench-heads: develop-models  ## compare closed-form heads, on the development set (WORK=folder)
	PYTHONPATH=export:bench $(EXPORT)/bin/python -m develop.head_study --work $(WORK)

bench-known: develop-models  ## compare scores for pictures of no class, on the development set (WORK=folder)
	PYTHONPATH=export:bench $(EXPORT)/bin/python -m develop.known_study --work $(WORK)

bench-strangers: $(EXPORT)/recipe-installed demo-tasks  ## what share of strangers is called none of the classes, and write docs/accuracy.md
	PYTHONPATH=bench $(EXPORT)/bin/python bench/strangers.py --tasks $(WORK)/tasks --work $(WORK)
	$(ACCURACY).report.page

soak: $(DEVICE)/fleet-installed  ## an hour of kills, faults and mutants, and docs/soak.md (MINUTES=60)
	PYTHONPATH=bench:tests $(DEVICE)/bin/python -m soak.run --minutes $(MINUTES)

soak-watch: $(DEVICE)/watch-installed  ## ten minutes of watching: is the memory flat? Writes a part of docs/at-work.md
	PYTHONPATH=bench $(DEVICE)/bin/python bench/watch_soak.py

clean:  ## remove the environments and caches
	rm -rf $(DEVICE) $(EXPORT) $(OLDEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(DEVICE)/bin/python $(EXPORT)/bin/python $(OLDEST)/bin/python:
	$(PYTHON) -m venv $(patsubst %/bin/python,%,$@)
	$@ $(PIP) --upgrade pip

$(DEVICE)/installed: $(SOURCES) | $(DEVICE)/bin/python
	$(DEVICE)/bin/python $(PIP) .
	@touch $@

$(DEVICE)/page-installed: $(DEVICE)/installed
	$(DEVICE)/bin/python $(PIP) '.[page]'
	@touch $@

# Debian's mosquitto and chromium: installed where that is allowed, otherwise asked for.
$(DEVICE)/watch-installed: $(DEVICE)/installed
	@command -v mosquitto > /dev/null || test -x /usr/sbin/mosquitto || \
	{ apt-get -qq update && apt-get -qq install --yes mosquitto; } || \
	{ echo "error: mosquitto is not installed, and only root can do that. Type: sudo apt install mosquitto" >&2; exit 2; }
	$(DEVICE)/bin/python $(PIP) '.[watch,mqtt]'
	@touch $@

$(DEVICE)/fleet-installed: $(DEVICE)/installed
	$(DEVICE)/bin/python $(PIP) '.[fleet]'
	@touch $@

$(DEVICE)/browser-installed: $(DEVICE)/tests-installed
	@command -v chromium > /dev/null || { apt-get -qq update && apt-get -qq install --yes chromium; } || \
	{ echo "error: chromium is not installed, and only root can do that. Type: sudo apt install chromium" >&2; exit 2; }
	$(DEVICE)/bin/python $(PIP) --group browser
	@touch $@

build/npm/installed:
	@command -v npm > /dev/null || { apt-get -qq update && apt-get -qq install --yes npm; } || \
	{ echo "error: npm is not installed, and only root can do that. Type: sudo apt install npm" >&2; exit 2; }
	npm install --silent --no-save --prefix build/npm axe-core@4 onnxruntime-web@1
	@touch $@

$(DEVICE)/tests-installed: $(DEVICE)/installed
	$(DEVICE)/bin/python $(PIP) --group test
	@touch $@

$(DEVICE)/recipe-installed $(EXPORT)/recipe-installed: %/recipe-installed: %/installed
	$*/bin/python $(PIP) --group bench
	@touch $@

$(DEVICE)/dist-installed: $(DEVICE)/installed
	$(DEVICE)/bin/python $(PIP) --group dist
	@touch $@

$(DEVICE)/lint-installed: $(DEVICE)/tests-installed
	$(DEVICE)/bin/python $(PIP) --group lint
	@touch $@

$(OLDEST)/installed: $(SOURCES) | $(OLDEST)/bin/python
	$(OLDEST)/bin/python $(PIP) --editable . --group test "onnxruntime==$(OLDEST_ONNXRUNTIME)"
	@touch $@

$(EXPORT)/installed: $(SOURCES) | $(EXPORT)/bin/python
	$(EXPORT)/bin/python $(PIP) --editable '.[export]' --group test
	@touch $@
