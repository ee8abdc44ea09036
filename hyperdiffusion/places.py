"""Where a store's heads lie: rows of weights in; the coordinates that they are diffused in, and each head's, out.

Made once, and kept in a file beside the checkpoint: a run that is killed goes on with the heads not placed yet.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from overfit.store import Rows

from .checkpoint import read_tensors, same_run, write_tensors
from .learner import Heads, Training, split
from .seldom import Seldom
from .subspace import CHUNK, learn, place
from .tokens import Coordinates, Plain, Tokens

KIND = "hyperdiffusion places"
# Steps between two showings of the loss.
SHOW_EVERY = 50


def coordinates_of(rows: Rows, path: Path, training: Training, about: dict, device: torch.device, cores: int,
                   ) -> tuple[Coordinates, Heads, torch.Tensor]:
    """What the heads are diffused in, those learned from, and those that judge (heads, D), in that.

    Plain coordinates are read from the store as they are needed. Others are few numbers a head, kept at `path`. Raises
    BadInput where that file is damaged or of another training than `about` describes.
    """
    judging, learned = split(len(rows), training)
    if training.coordinates in ("raw", "scaled"):
        some = rows[learned[:training.subspace.axes_from]]
        sizes = rows.field.sizes
        plain = Plain.raw(sizes) if training.coordinates == "raw" else Plain.scaled(some, sizes)
        return plain, _Encoded(rows, learned, plain), plain.encode(rows[judging])
    order = [*learned, *judging]
    if path.exists():
        tensors, theirs = read_tensors(path, KIND, "delete it to start again")
        same_run(path, theirs, about)
        tokens, places = Tokens(rows.field.sizes, *(tensors[name] for name in Tokens.TENSORS)), tensors["places"]
    else:
        tokens, places = _axes(rows, order, training, device, cores, len(learned))
        _save(path, tokens, places, about)
    _place(rows, order, tokens.to(device), places, training, cores, lambda: _save(path, tokens, places, about))
    return tokens, places[:len(learned)], places[len(learned):]


def _place(rows: Rows, order: list[int], tokens: Tokens, places: torch.Tensor, training: Training, cores: int,
           save: Callable[[], None]) -> None:
    """Fill in the coordinates (n, D) that are NaN; `save` is called now and then, and at the end."""
    others = places.isnan().any(1).nonzero().flatten().tolist()
    saving = Seldom()
    with tqdm(total=len(others), desc="placing heads", unit="head", disable=not others) as bar:
        for start in range(0, len(others), CHUNK):
            chunk = others[start:start + CHUNK]
            weights = rows[[order[index] for index in chunk]].to(tokens.mean.device)
            found = (tokens.encode(weights) if training.coordinates == "weights"
                     else place(rows.field, rows.cube, weights, tokens, training.subspace, cores))
            places[chunk] = found.cpu()
            bar.update(len(chunk))
            if start + CHUNK >= len(others) or saving.due(training.save_every):
                with saving.done():
                    save()


def _save(path: Path, tokens: Tokens, places: torch.Tensor, about: dict) -> None:
    write_tensors(path, {"places": places} | {name: getattr(tokens, name) for name in Tokens.TENSORS},
                  {**about, "kind": KIND})


def _axes(rows: Rows, order: list[int], training: Training, device: torch.device, cores: int, learned: int,
          ) -> tuple[Tokens, torch.Tensor]:
    """The axes of a store, and coordinates (n, D) of its heads in an order, the `learned` ones first: NaN for now
    where the axes do not come with them.

    Principal axes come from learned heads alone. The subspace comes from heads all over the order, those that judge the
    training among them: heads that are placed afterwards lie nearer to the mean, where no model of the others is right.
    """
    settings = training.subspace
    if training.coordinates == "weights":
        tokens = Tokens.of(rows[order[:min(learned, settings.axes_from)]], rows.field.sizes)
        return tokens, torch.full((len(order), tokens.size), torch.nan)
    some = torch.linspace(0, len(order) - 1, min(len(order), settings.axes_from)).long().tolist()
    weights = rows[[order[index] for index in some]]
    with tqdm(total=settings.axes_steps, desc="learning the subspace", unit="step") as bar:

        def progress(loss: torch.Tensor) -> None:
            bar.update()
            if bar.n % SHOW_EVERY == 0:
                bar.set_postfix_str(f"loss {loss:.3f}")

        tokens, found = learn(rows.field, rows.cube, weights.to(device), settings, training.seed, cores, progress)
    places = torch.full((len(order), tokens.size), torch.nan)
    places[some] = found.cpu()
    return tokens, places


class _Encoded:
    """Some heads of a store, read and encoded when they are asked for."""

    def __init__(self, rows: Rows, indices: list[int], coordinates: Plain):
        self.rows, self.indices, self.coordinates = rows, torch.tensor(indices), coordinates

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: torch.Tensor) -> torch.Tensor:
        return self.coordinates.encode(self.rows[self.indices[chosen]])
