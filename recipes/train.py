"""Fine-tunes a retriever on rows with negatives.

On one device:
    python recipes/train.py --config recipes/scifact/minilm.yaml --dataset FOLDER --output out
On several:
    accelerate launch --config_file recipes/accelerate_configs/multi_gpu.yaml \
        recipes/train.py --config recipes/scifact/minilm.yaml --dataset FOLDER --output out

Every key of the YAML file can be given as ``--key value``, which wins; ``--help`` lists them all.
"""

from __future__ import annotations

import os
import sys

from syneg import ContrastiveArguments, InputError
from syneg.config import ConfigParser
from syneg.errors import one_line
from syneg.training.run import TrainArguments, make_trainer, measure, save


def train(what: TrainArguments, how: ContrastiveArguments) -> None:
    """Loads, trains, saves."""
    trainer = make_trainer(what, how)
    measure(trainer, "before")
    trainer.train(resume_from_checkpoint=how.resume_from_checkpoint)
    measure(trainer, "after")
    save(trainer, what)
    if how.push_to_hub:
        trainer.push_to_hub()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    try:
        train(*ConfigParser((TrainArguments, ContrastiveArguments)).parse())
    except InputError as error:
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
