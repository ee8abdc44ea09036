"""Training from a store that is larger than the memory allowed.

    python benchmarks/train_scale.py WORK [--heads 100000] [--gib 4] [--coordinates weights]

Fills a store below WORK with noise in place of fits, 0.15 MB a head, and trains a few steps on it in a process whose
own memory (RLIMIT_DATA: all but mapped files) is held to --gib.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from overfit import Cube, Field, Store
from overfit.store import PART, Record

STEPS = 50


def filled(folder: Path, heads: int) -> Store:
    """A store of so many heads; one that is there is taken."""
    if (folder / "store.json").exists():
        return Store(folder)
    store = Store.create(folder, Field(), Cube((0.0, 0.0, 0.0), 150.0), {})
    random = torch.Generator().manual_seed(0)
    shared = torch.randn(32, Field().size, generator=random)
    for start in tqdm(range(0, heads, PART), desc="filling the store", unit="part"):
        count = min(PART, heads - start)
        rows = torch.randn(count, 32, generator=random) @ shared + torch.randn(count, Field().size, generator=random)
        names = [f"{index:07d}" for index in range(start, start + count)]
        store.add(start // PART, rows / 100, [Record(name, name, 1.0, 0.1, 0.1, 1) for name in names])
        store.merge()
    return store


def main() -> None:
    """Fill and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--heads", type=int, default=100_000)
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--coordinates", default="weights", choices=("weights", "scaled", "raw"))
    words = parser.parse_args()
    store = filled(words.work / "store", words.heads)
    model = words.work / f"{words.coordinates}.safetensors"
    model.unlink(missing_ok=True)
    limit = int(words.gib * 2**30)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "hyperdiffusion", "train", store.folder, model, "--coordinates", words.coordinates,
         "--steps", str(STEPS), "--axes-from", "512", "--show-every", "1000"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
    size = sum(os.path.getsize(path) for path in store.folder.rglob("*.safetensors"))
    print("| heads | store, GiB | memory allowed, GiB | seconds for all, 50 steps | ended well |\n"
          "| --- | --- | --- | --- | --- |")
    print(f"| {len(store.rows())} | {size / 2**30:.1f} | {words.gib} | {time.monotonic() - start:.0f} | "
          f"{done.returncode == 0} |")


if __name__ == "__main__":
    main()
