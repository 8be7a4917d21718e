"""What each process of ``test_training_processes`` runs: both stages for two steps, in its half of the rows.

``python processes_training.py TREE FOLDER``, with the environment that ``accelerate launch`` gives.
"""

from __future__ import annotations

import sys
from pathlib import Path

tree, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path[:0] = [str(tree), str(tree / "tests/core")]

import tiny_training as tiny  # noqa: E402
import torch  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    torch.optim.AdamW = tiny.plain_descent
    tiny.train_both(folder, rows=1)
    print("done", flush=True)


if __name__ == "__main__":
    main()
