"""`python -m syneg`, and by a launcher: ``accelerate launch -m syneg train --config scifact/minilm``."""

import sys

from syneg.cli import main

if __name__ == "__main__":
    sys.exit(main())
