"""Every field of a dataclass has a docstring of its own, and the library speaks of arguments, not of flags."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for package in ("overfit", "hyperdiffusion") for path in sorted((ROOT / package).rglob("*.py"))]


def is_dataclass(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(one) for one in node.decorator_list)


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_field_has_a_docstring(path):
    for node in filter(is_dataclass, ast.walk(ast.parse(path.read_text()))):
        for field, following in zip(node.body, [*node.body[1:], None]):
            if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation):
                assert following is not None and is_text(following), f"{node.name}.{field.target.id}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_name_arguments_and_not_flags(path):
    if path.name == "cli.py":
        return
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if is_text(node)}
    for text in messages(tree, docstrings):
        # Whole commands in backticks may have flags.
        words = re.sub(r"`([^`]*)`", lambda match: "" if " " in match[1] else match[0], text)
        assert not re.search(r"(^|\s)--[a-z]", words), text


def messages(tree: ast.AST, docstrings: set[int]) -> list[str]:
    """All strings of a module but docstrings; values in f-strings are left out."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts
    ]
    return texts + [
        "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
    ]


def test_no_two_public_classes_have_one_name():
    names = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not [name for name, count in names.items() if count > 1]
