"""Imports run against the flow of data: stage 2 may import stage 1, and lower layers never import higher ones."""

import ast
import configparser
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

# A module may import modules of its own layer and of those before it. A name stands for a module or a whole folder.
LAYERS = {
    "overfit": [
        ["runtime", "store_v1"],
        ["geometry"],
        ["scans", "field"],
        ["canonical"],
        ["neural_head", "labels", "lr_schedule", "soap"],
        ["fit", "paper_fit", "decoder", "prior"],
        ["field_labels", "fit_metrics", "store"],
        ["repair"],
        ["decode_folder", "fit_batch"],
        ["presets", "fit_scans", "decode_fits"],
    ],
    "hyperdiffusion": [
        ["checkpoints", "data", "rendering"],
        ["diffusion"],
        ["completion"],
        ["evaluation"],
        ["presets"],
        ["demo"],
        ["cli"],
        ["__main__"],
    ],
}
# Modules that drawing and sampling use, and those of training, which they must not.
SAMPLING = ["samplers", "checkpoint", "generate", "interpolate"]
TRAINING = ["trainer", "train", "encode_store", "latent_space", "distributed"]


def imported_modules(path: Path) -> set[str]:
    """The project's modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] in LAYERS}


def modules(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]


def layer_of(package: str, dotted: str) -> int | None:
    """The layer of a module `package.part...`, or None for the package itself."""
    part = dotted.split(".")[1] if "." in dotted else None
    return next((index for index, layer in enumerate(LAYERS[package]) if part in layer), None)


@pytest.mark.parametrize("package", LAYERS)
def test_every_module_belongs_to_a_layer(package):
    for path in modules(package):
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        assert layer_of(package, dotted) is not None, f"{dotted} has no layer"


def test_stage_one_does_not_import_stage_two():
    for path in (ROOT / "overfit").rglob("*.py"):
        assert not any(name.startswith("hyperdiffusion") for name in imported_modules(path)), path


@pytest.mark.parametrize("package", LAYERS)
def test_no_module_imports_a_higher_layer(package):
    for path in modules(package):
        own = layer_of(package, ".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in imported_modules(path):
            if name.split(".")[0] == package and (theirs := layer_of(package, name)) is not None:
                assert theirs <= own, f"{path} imports {name}"


def test_geometry_does_not_know_of_networks():
    for path in (ROOT / "overfit" / "geometry").rglob("*.py"):
        assert not any(name.startswith("overfit.field") for name in imported_modules(path)), path


def reachable(start: str) -> set[str]:
    """Modules of hyperdiffusion.diffusion that a module imports, directly or by others."""
    seen, todo = set(), [start]
    while todo:
        module = todo.pop()
        path = ROOT / "hyperdiffusion" / "diffusion" / f"{module}.py"
        if module in seen or not path.exists():
            continue
        seen.add(module)
        prefix = "hyperdiffusion.diffusion."
        todo += [name.removeprefix(prefix).split(".")[0] for name in imported_modules(path) if name.startswith(prefix)]
    return seen


@pytest.mark.parametrize("module", SAMPLING)
def test_sampling_does_not_import_training(module):
    assert not reachable(module) & set(TRAINING)


@pytest.mark.parametrize(
    "folder",
    [
        "overfit/runtime",
        "overfit/geometry",
        "overfit/scans",
        "overfit/canonical",
        "hyperdiffusion/diffusion",
        "hyperdiffusion/evaluation",
        "hyperdiffusion/rendering",
    ],
)
def test_modules_of_a_folder_do_not_import_in_circles(folder):
    prefix = folder.replace("/", ".") + "."
    needs = {
        path.stem: {
            name.removeprefix(prefix).split(".")[0] for name in imported_modules(path) if name.startswith(prefix)
        }
        for path in (ROOT / folder).glob("*.py")
        if path.name != "__init__.py"
    }
    needs = {module: (names & needs.keys()) - {module} for module, names in needs.items()}
    while free := [module for module, names in needs.items() if not names]:
        needs = {module: names - set(free) for module, names in needs.items() if module not in free}
    assert not needs, f"circular: {needs}"


def test_libraries_that_modules_import_at_the_start_are_installed_with_the_package():
    """Those of the extras are imported where they are used."""
    imported = {
        name.split(".")[0]
        for package in LAYERS
        for path in (ROOT / package).rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    } - {*LAYERS, *sys.stdlib_module_names}
    required = {canonicalize_name(Requirement(line).name) for line in requirements("options", "install_requires")}
    # A library without a list of its modules has the name of its module.
    distributions = packages_distributions()
    missing = {name for name in imported if not required & set(map(canonicalize_name, distributions.get(name, [name])))}
    assert not missing, f"not in install_requires: {missing}"


def requirements(section: str, option: str) -> list[str]:
    return [line for line in setup_config()[section][option].splitlines() if line and not line.startswith("#")]


def setup_config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_the_wheel_lists_every_package():
    listed = set(setup_config()["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in LAYERS
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert listed == found | {"hyperdiffusion.checkpoints"}
