"""Every public name is there, has a docstring, and is not hidden by a module of the same name."""

import inspect
import pkgutil

import pytest

import hyperdiffusion
import overfit


@pytest.mark.parametrize("package", [overfit, hyperdiffusion], ids=lambda package: package.__name__)
def test_public_names_exist_and_are_documented(package):
    for name in package.__all__:
        value = getattr(package, name)
        assert value.__doc__ or not (inspect.isclass(value) or inspect.isfunction(value)), name


@pytest.mark.parametrize("package", [overfit, hyperdiffusion], ids=lambda package: package.__name__)
def test_no_public_name_hides_a_module(package):
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(package.__all__)


def test_every_command_of_the_command_line_has_its_function():
    functions = {"write_heads", "train", "sample", "write_samples", "interpolate_heads", "mix_layers", "evaluate"}
    functions |= {"read_attributes", "edit_head", "expression_plane", "write_plane"}
    assert functions | {"run_demo"} <= set(hyperdiffusion.__all__)
    assert {"prepare", "overfit", "decode_to_folder"} <= set(overfit.__all__)
