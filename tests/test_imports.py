"""Imports run against the way of the data: stage 2 may import stage 1, no stage the other way."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A module may import those above it.
ORDER = {
    "overfit": ["errors", "files", "field", "cube", "workers", "cluster", "clouds", "point_files", "depth_frames",
                "fusion", "scans", "depth_scans", "occupancy", "published", "fit", "decode", "one_body", "healing",
                "accuracy", "closing", "registration", "prepare", "prepared_folder", "store", "batch", "presets",
                "run"],
    "hyperdiffusion": ["seldom", "heads", "tokens", "diffusion", "mixture", "transformer", "samplers", "checkpoint",
                       "subspace", "healed", "sample", "processes", "learner", "presets",
                       "steer", "metrics", "render", "places", "train", "validity", "features", "evaluate", "report",
                       "prepared_sheet", "demo", "cli", "__main__"],
}


def modules(package: str) -> dict[str, set[str]]:
    """The project's modules that each module of a package imports, as package.module."""
    found = {}
    for path in (ROOT / package).glob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = package if node.level else (node.module or "").split(".")[0]
                inner = node.module if node.level else ".".join((node.module or "").split(".")[1:])
                if base in ORDER:
                    names |= {f"{base}.{inner}"} if inner else {f"{base}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names if alias.name.split(".")[0] in ORDER}
        found[path.stem] = names
    return found


def test_every_module_has_its_place():
    for package, order in ORDER.items():
        assert sorted(order + ["__init__"]) == sorted(modules(package))


def test_stage_one_knows_nothing_of_stage_two():
    for names in modules("overfit").values():
        assert not any(name.startswith("hyperdiffusion") for name in names)


def test_no_module_imports_a_later_one():
    for package, order in ORDER.items():
        for module, names in modules(package).items():
            if module == "__init__":
                continue
            for name in names:
                base, _, inner = name.partition(".")
                if base == package and inner in order:
                    assert order.index(inner) < order.index(module), f"{package}.{module} imports {name}"
