"""Fine-tunes a retriever on rows with negatives.

On one device:
    python recipes/train.py --config recipes/scifact/minilm.yaml --dataset FOLDER --output out
On several:
    accelerate launch --config_file recipes/accelerate_configs/multi_gpu.yaml \
        recipes/train.py --config recipes/scifact/minilm.yaml --dataset FOLDER --output out

Every key of the YAML file can be given as ``--key value``, which wins; ``--help`` lists them all. It is
`syneg train` as a script that launchers take: `syneg.training.run.run` loads, measures, trains and saves.
"""

import sys

from syneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
