"""The card of a model with attributes: attributes in, a Markdown file beside the checkpoint out."""

from pathlib import Path
from shlex import quote

from hyperdiffusion.diffusion.attributes import Attributes, Numeric
from overfit.runtime.atomic_io import atomic_write


def write_attribute_card(attributes: Attributes, checkpoint: Path) -> Path:
    """Write which attributes a model has and what may be asked of it; return the file's path."""
    path = checkpoint.with_suffix(".md")
    with atomic_write(path) as unfinished:
        unfinished.write_text(attribute_card(attributes, checkpoint.name), encoding="utf-8")
    return path


def attribute_card(attributes: Attributes, checkpoint: str) -> str:
    """Return the card of a model as Markdown."""
    rows = [
        f"| {column.name} | {'number' if isinstance(column, Numeric) else 'category'} | {column.allowed} |"
        for column in attributes.columns
    ]
    first = attributes.columns[0]
    example = f"{first.name}={first.format(first.high) if isinstance(first, Numeric) else first.levels[0]}"
    return "\n".join(
        [
            f"# {checkpoint}",
            "",
            "A generator of heads with attributes:",
            "",
            "| attribute | kind | values |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"`hyperdiffusion sample NEW --checkpoint {quote(checkpoint)} --set {quote(example)}`",
            "",
        ]
    )
