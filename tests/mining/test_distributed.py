from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from syneg.mining.arguments import MiningArguments
from syneg.mining.mine import mine_pairs
from tests.stand_in import free_port, tiny_encoder, tiny_source

SCRIPT = """
import sys
import numpy as np
import torch
from syneg.mining import embeddings
from syneg.mining.arguments import MiningArguments
from syneg.mining.mine import mine_pairs
from syneg.mining.candidates import Processes
from tests.stand_in import tiny_source

embeddings.SHARD_ROWS = 16  # so that both processes have something to encode
args = MiningArguments(miners="bm25,dense,random", encoder=sys.argv[1], mining_cache=sys.argv[2],
                       mined_per_miner=3, relative_margin="{}", mining_device="cpu",
                       mining_depth=int(sys.argv[3]))
mined = mine_pairs(tiny_source().pairs("train"), args, seed=4)
rank = Processes()
assert rank.world == 2
np.savez(f"{sys.argv[2]}/{rank.rank}.npz", offsets=mined.offsets, rows=mined.document_rows,
         ranks=mined.ranks, scores=mined.scores)
# Both leave together: one that leaves while the other is at work aborts now and then.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


# With 3 the queries of two positives are searched deeper than the others.
@pytest.mark.distributed
@pytest.mark.parametrize("depth", [100, 3])
def test_two_processes_find_what_one_finds(tmp_path: Path, depth: int) -> None:
    encoder = tiny_encoder(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    # What `accelerate launch` starts on GPUs; for CPUs alone it wants MPI.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += [
        "--master_port",
        str(free_port()),
        str(tmp_path / "script.py"),
        encoder,
        str(tmp_path),
        str(depth),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    args = MiningArguments(
        miners="bm25,dense,random",
        encoder=encoder,
        mining_cache=str(tmp_path / "alone"),
        mined_per_miner=3,
        relative_margin="{}",
        mining_device="cpu",
        mining_depth=depth,
    )
    alone = mine_pairs(tiny_source().pairs("train"), args, seed=4)
    for rank in (0, 1):
        found = np.load(tmp_path / f"{rank}.npz")
        assert np.array_equal(found["offsets"], alone.offsets)
        assert np.array_equal(found["rows"], alone.document_rows)
        assert np.array_equal(found["ranks"], alone.ranks)
        assert np.allclose(found["scores"], alone.scores, atol=1e-5, equal_nan=True)
    # Each file of embeddings was written once, by one of the two.
    assert len(list((tmp_path / "embeddings").glob("*/*.npy"))) == 4 + 1
