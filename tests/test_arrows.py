"""The house: which wing may import which, no circles, and nothing too long or without a docstring. Read from the source alone."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "purejaxrl_ext"
MAX_FILE, MAX_FUNCTION = 400, 50  # lines; a function's without its docstring

SHARED = {"types", "spaces", "errors"}
PARTS = SHARED | {"networks", "rules", "representation"}
CORE = PARTS | {"interventions"}
ARROWS = {
    "devices": {"errors"},
    "errors": set(),
    "spaces": set(),
    "types": {"devices", "errors", "spaces"},
    "envs": SHARED,
    "networks": SHARED | {"devices"},
    "rules": SHARED | {"networks"},
    "representation": SHARED | {"networks"},
    "interventions": PARTS,
    "loops": CORE | {"devices", "envs"},
    "algorithms": CORE | {"devices", "envs", "loops"},
    "sweeps": CORE | {"devices", "envs", "loops", "algorithms", "analysis"},
    "tabular": SHARED | {"envs", "rules"},
    "analysis": SHARED | {"envs"},
}
# Packages that one wing, or one file, alone knows: the disk is the sweeps', a suite of environments its file's.
KEPT = {
    **dict.fromkeys(("orbax", "zarr"), "sweeps/"),
    **dict.fromkeys(("os", "io", "pathlib", "shutil", "tempfile", "pickle"), ("sweeps/", "analysis/", "devices.py")),
    "gymnax": "envs/gymnax.py",
    "brax": "envs/brax.py",
    "pgx": "envs/pgx",
    "octax": "envs/octax.py",
    "xminigrid": "envs/xminigrid.py",
    "gymnasium": "envs/gymnasium",
    "ale_py": "envs/ale.py",
    "envpool": "envs/envpool.py",
    "matplotlib": "analysis/",
}

SOURCES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(file: str) -> str:
    """``envs/base.py`` is ``envs.base``, and ``envs/__init__.py`` is ``envs``."""
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


MODULES = {module_name(file): file for file in SOURCES}


def wing(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    """Full names of what is imported: modules, and whatever is taken out of them."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(tree: ast.AST) -> set[str]:
    """Modules of the package that are imported."""
    names = {name.removeprefix(f"{ROOT.name}.") for name in imports(tree) if name.split(".")[0] == ROOT.name}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


def run_on_import(tree: ast.Module) -> ast.Module:
    """Without what functions and ``if TYPE_CHECKING`` import."""

    class TopLevel(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.If | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else node

    return TopLevel().visit(ast.parse(ast.unparse(tree)))


def functions(node: ast.AST, outer: str = "") -> list[tuple[str, ast.AST]]:
    """Functions and classes with their dotted names, those inside others too."""
    found: list[tuple[str, ast.AST]] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            found.append((outer + child.name, child))
            found += functions(child, f"{outer}{child.name}.")
        else:
            found += functions(child, outer)
    return found


def test_wings_import_along_the_arrows():
    assert {wing(file) for file in SOURCES} - {"__init__"} <= ARROWS.keys()
    wrong = set()
    for file, tree in SOURCES.items():
        if file != "__init__.py":
            used = {name.split(".")[0] for name in ours(tree)} - {wing(file)}
            wrong |= {f"{file}: {name or 'the whole package'}" for name in used - ARROWS[wing(file)]}
    assert not wrong


def test_arrows_make_no_circle():
    assert list(graphlib.TopologicalSorter(ARROWS).static_order())


def test_modules_make_no_circle():
    """Of those that import each other while they are imported; a wing's own ``__init__`` imports its modules, not they it."""
    graph = {name: ours(run_on_import(SOURCES[file])) - {name} for name, file in MODULES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_each_package_is_known_in_its_place_alone():
    wrong = set()
    for file, tree in SOURCES.items():
        for name in {name.split(".")[0] for name in imports(tree)} & KEPT.keys():
            if not file.startswith(KEPT[name]):
                wrong.add(f"{file}: {name}")
    assert not wrong


def test_nothing_below_sweeps_opens_a_file():
    for file, tree in SOURCES.items():
        if wing(file) not in ("sweeps", "analysis"):
            called = {
                node.func.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert "open" not in called, file


def test_sweeps_name_no_algorithm():
    from purejaxrl_ext import ALGORITHMS

    for file, tree in SOURCES.items():
        if wing(file) == "sweeps":
            said = {
                node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not said & ALGORITHMS.keys(), file


def test_no_file_is_too_long():
    lines = {path.relative_to(ROOT).as_posix(): path.read_text().count("\n") for path in ROOT.rglob("*.py")}
    assert not {file for file, count in lines.items() if count > MAX_FILE}


def test_no_function_is_longer_than_a_screen():
    long = set()
    for file, tree in SOURCES.items():
        for name, node in functions(tree):
            told = len((ast.get_docstring(node, clean=False) or "").split("\n")) if isinstance(node, Function) else 0
            if isinstance(node, Function) and node.end_lineno - node.lineno + 1 - told > MAX_FUNCTION:
                long.add(f"{file} {name}")
    assert not long


def test_everything_public_has_a_docstring():
    """Members of a protocol are told of there, and a class may tell of its own."""
    missing = {file for file, tree in SOURCES.items() if not ast.get_docstring(tree)}
    protocols = {member for tree in SOURCES.values() for member in protocol_members(tree)}
    for file, tree in SOURCES.items():
        for name, node in public(tree):
            owner, _, own = name.rpartition(".")
            told = ast.get_docstring(dict(public(tree))[owner]) or "" if owner else ""
            if not ast.get_docstring(node) and own not in protocols and not mentions(told, own):
                missing.add(f"{file} {name}")
    assert not missing, "\n".join(sorted(missing))


def mentions(told: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", told) is not None


def public(node: ast.AST, outer: str = "") -> list[tuple[str, ast.AST]]:
    """Public classes, functions and methods, by their dotted names."""
    found: list[tuple[str, ast.AST]] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
            found.append((outer + child.name, child))
            if isinstance(child, ast.ClassDef):
                found += public(child, f"{outer}{child.name}.")
    return found


def protocol_members(tree: ast.Module) -> set[str]:
    """Of protocols that tell of each member in their docstring or in their module's."""
    members = set()
    for _, node in public(tree):
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
            told = f"{ast.get_docstring(tree)} {ast.get_docstring(node)}"
            names = {name for name, _ in public(node)}
            names |= {child.target.id for child in node.body if isinstance(child, ast.AnnAssign)}
            members |= {name for name in names if mentions(told, name)}
    return members
