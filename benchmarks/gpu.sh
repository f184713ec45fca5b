#!/bin/sh
# What has to be run on a GPU, each part against its reference on the CPU; ten minutes on one GPU at most.
#
#     benchmarks/gpu.sh                  on a machine with a GPU
#     benchmarks/gpu.sh --toy            all of it at toy size on a CPU, so that it is known to run
#     benchmarks/gpu.sh --only bf16 vllm
#
# Installs nothing: the environment has to hold syneg and, for the parts that need them, vllm, bitsandbytes,
# deepspeed, flash-attn. $PYTHON chooses it; else .venv, else python3. Exits as `python -m benchmarks.gpu`.
cd "$(dirname "$0")/.." || exit 2
if [ -z "$PYTHON" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m benchmarks.gpu "$@"
