# Every target sets up what it needs; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: quickstart test test-slow check bench bench-peers study-guidance study-rewards study-agents \
	clean
.DEFAULT_GOAL := check

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(READY)

# Warm start, GRPO, evaluation and report.html on the CPU, in a few minutes.
quickstart: $(READY)
	$(BIN)/python -m grpo_jax.train --config=configs/quickstart.py --workdir=runs/quickstart

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not slow and not torch"

# The rest: long walks, and what needs torch where torch is installed.
test-slow: $(READY)
	$(BIN)/python -m pytest -m "slow or torch"

# Before every commit: format, lint, types, layering, fast tests.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n 2 -m "not system and not slow and not torch"

# Speed and memory on an otherwise idle machine; `make bench-peers` first
# adds the other libraries. Results are JSON files in benchmarks/results.
bench: $(READY)
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.skewed_lengths
	$(BIN)/python -m benchmarks.shared_prompt
	$(BIN)/python -m benchmarks.grpo_step
	$(BIN)/python -m benchmarks.grpo_step --skewed
	$(BIN)/python -m benchmarks.log_probs
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.scaling --figure=docs/scaling.svg

# Miniature runs that compare ways of guidance: about an hour on two cores, resumable.
study-guidance: $(READY)
	$(BIN)/python -m studies.run guidance

# Miniature runs that compare rewards of length: about 25 minutes on two cores, resumable.
study-rewards: $(READY)
	$(BIN)/python -m studies.run rewards

# Miniature runs that compare agents that search: about 35 minutes on two cores, resumable.
study-agents: $(READY)
	$(BIN)/python -m studies.run agents

# The environments of the libraries that benchmarks/ compares with: ours has none of it.
PEERS := benchmarks/.peers
bench-peers: $(PEERS)/torch/.ready $(PEERS)/tunix/.ready

$(PEERS)/%/.ready: benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --upgrade pip
	$(@D)/bin/pip install --quiet --requirement $<
	touch $@

clean:
	rm -rf .venv runs $(PEERS) *.egg-info
