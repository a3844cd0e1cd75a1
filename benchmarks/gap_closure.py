"""Gap closure: how far ours goes from the best tuned peer to joint training, on class-incremental Split Fashion-MNIST.

    python benchmarks/gap_closure.py [--folder FOLDER] [--workers N] [--dry_run]

The same as ``python -m bayesdual compare --config configs/compare_gap_closure.yaml``, which says what is compared.
"""

import sys

from bayesdual.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["compare", "--config", "configs/compare_gap_closure.yaml", *sys.argv[1:]]))
