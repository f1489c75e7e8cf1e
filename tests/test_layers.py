"""Imports go down only; the wheel contains every package; every test states its fact."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FRONT = ROOT / "src" / "perimetry"
FOLDERS = ("adapters", "suites", "bench")
ORDER = {
    "adapters": (
        "errors scratch own_process reference device treatment input_spec feature_grid "
        "every_output readings target_rule blocks class_names complexity padding_mode torch_calls "
        "exported_operators skeleton_marks zero_taps model copies "
        "seeding meta_forward "
        "kernel_padding pytorch checkpoint created hub timm torchvision huggingface own_code "
        "exported trainable onnx export self_check names load"
    ),
    "suites": (
        "base settings pictures images measuring architecture structure erf deadpixel perturbation "
        "padding fidelity halo output shift frequency position objects training registry"
    ),
    "bench": (
        "output figures records statistics execution model_report ranking comparison regression "
        "training pad_file demo doctor speed pytest_plugin cli"
    ),
}
CHAPTERS = {folder: tuple(text.split()) for folder, text in ORDER.items()}
"""What stands in each folder, from the ground up: a chapter uses only those before it."""
SUITES = set(CHAPTERS["suites"][6:-1])
CONTRACT = set(CHAPTERS["adapters"][: CHAPTERS["adapters"].index("model") + 1])
DOORS = {"names", "load", "trainable", "export", "self_check"}
"""What bench may import of adapters, besides the contract."""
HEAVY = {"timm", "torchvision", "transformers", "onnxruntime", "onnx", "onnxscript"}
COMMANDS = {"list_models", "audit", "check", "compare"}
"""Commands and a fixture that bear the name of the public function that they call."""


def modules() -> dict[str, Path]:
    """Every module by its dotted name, such as `suites.erf.metrics`."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    assert len(found) > 100
    return found


MODULES = modules()


def imports_of(name: str, node: ast.AST, *, whole: bool = False):
    """What a statement of a module imports: `suites.base` for one of ours, else the dotted name.

    The `whole` one of a name of another package, such as `torch.Tensor`.
    """
    package = name if MODULES[name].stem == "__init__" else name.rpartition(".")[0]
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield from (f"{node.module}.{a.name}" for a in node.names) if whole else [node.module]
    elif isinstance(node, ast.ImportFrom):
        base = package.split(".")[: len(package.split(".")) - node.level + 1]
        stem = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{stem}.{alias.name}".strip(".")
            yield inner if inner in MODULES else stem


def imported(name: str) -> set[str]:
    """What a module imports anywhere."""
    nodes = ast.walk(ast.parse(MODULES[name].read_text()))
    return {one for node in nodes for one in imports_of(name, node)}


EDGES = {name: imported(name) for name in MODULES}


def chapter(name: str) -> tuple[str, str]:
    """Folder and chapter of a module; a folder's own `__init__` has no chapter."""
    folder, _, rest = name.partition(".")
    return folder, rest.partition(".")[0]


@pytest.mark.parametrize("name", [n for n in MODULES if chapter(n)[1]])
def test_a_chapter_uses_only_what_stands_before_it(name):
    """A chapter imports only chapters before it: adapters, then suites, then bench."""
    folder, own = chapter(name)
    for other in EDGES[name] & MODULES.keys():
        there, theirs = chapter(other)
        assert FOLDERS.index(there) <= FOLDERS.index(folder), f"{name} imports {other}"
        if there == folder and theirs:
            order = CHAPTERS[folder]
            assert order.index(theirs) <= order.index(own), f"{name} imports {other}"


def test_every_chapter_is_named():
    """A new file or package must take its place in the order."""
    for folder in FOLDERS:
        found = {chapter(n)[1] for n in MODULES if n.startswith(f"{folder}.")}
        assert found == set(CHAPTERS[folder]), folder


def test_no_module_imports_itself_by_way_of_others():
    """No circle at all: imports for the type checker and within functions count too."""
    TopologicalSorter({n: EDGES[n] & MODULES.keys() for n in MODULES}).prepare()


def test_suites_do_not_know_one_another():
    """No suite imports another one."""
    for name in MODULES:
        folder, own = chapter(name)
        if folder == "suites" and own in SUITES:
            others = {
                chapter(o)[1] for o in EDGES[name] & MODULES.keys() if chapter(o)[0] == folder
            }
            assert not others & (SUITES - {own}), name


def test_suites_know_models_only_through_their_contract():
    """Suites import the Model protocol, its value types and the errors; and no runtime."""
    for name in MODULES:
        if chapter(name)[0] == "suites":
            ours = {chapter(o)[1] for o in EDGES[name] & MODULES.keys() if o.startswith("adapters")}
            assert ours <= CONTRACT, f"{name} imports {ours - CONTRACT}"
            assert not {o.partition(".")[0] for o in EDGES[name] - MODULES.keys()} & HEAVY, name


def test_bench_knows_models_only_through_the_contract_and_the_front_doors():
    """bench imports from adapters the contract and the chapters in `DOORS` only."""
    for name in MODULES:
        if chapter(name)[0] == "bench":
            ours = {chapter(o)[1] for o in EDGES[name] & MODULES.keys() if o.startswith("adapters")}
            assert ours <= CONTRACT | DOORS, f"{name} imports {ours - CONTRACT - DOORS}"


def test_every_folder_with_code_is_in_the_wheel():
    """pyproject.toml lists every package, and the place of the four at the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {p.parent.relative_to(ROOT) for f in FOLDERS for p in (ROOT / f).rglob("*.py")}
    packages = {f"perimetry.{'.'.join(f.parts)}" for f in folders}
    assert set(settings["packages"]) == {"perimetry", *packages}
    places = {f"perimetry.{folder}": folder for folder in FOLDERS}
    assert settings["package-dir"] == {"perimetry": FRONT.relative_to(ROOT).as_posix(), **places}
    for folder in folders:
        assert (ROOT / folder / "__init__.py").exists(), folder


def test_every_public_name_is_used_once():
    """No two classes or functions at the top of modules have one name, but for `COMMANDS`."""
    defined = [
        node.name
        for path in MODULES.values()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    assert {name for name, uses in Counter(defined).items() if uses > 1} == COMMANDS


def files(folder: Path) -> set[Path]:
    """Every file below `folder`, but for what Python compiled."""
    found = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(folder) for p in found}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_installed_package_has_every_file(folder):
    """The installed perimetry.X has the same files as the folder X, data included."""
    package = importlib.import_module(f"perimetry.{folder}")
    place = next(p for p in map(Path, package.__path__) if p.is_dir())
    assert files(place) == files(ROOT / folder)
    assert (place / "py.typed").exists()


def test_the_front_package_is_one_module_that_nothing_below_imports():
    """`perimetry` itself only names the public functions: one file and the mark of types."""
    assert files(FRONT) == {Path("__init__.py"), Path("py.typed")}
    place = Path(importlib.import_module("perimetry").__file__).parent
    assert (place / "py.typed").exists()
    assert (place / "__init__.py").read_text() == (FRONT / "__init__.py").read_text()
    for name, edges in EDGES.items():
        assert not edges & {"", "perimetry"}, name


def test_the_public_functions_are_found_in_bench_too():
    """`perimetry.bench` gives what `perimetry` gives, and nothing else under those names."""
    front, bench = importlib.import_module("perimetry"), importlib.import_module("perimetry.bench")
    for name in set(front.__all__) - {"__version__"}:
        assert getattr(bench, name) is getattr(front, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bench.nothing  # noqa: B018


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda p: p.stem)
def test_every_test_states_its_fact(path):
    """Every test function has a docstring: the fact that it proves, as a whole sentence."""
    found = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef))
    tests = [n for n in found if n.name.startswith("test_")]
    assert [n.name for n in tests if not (ast.get_docstring(n) or "").endswith(".")] == []


def taken_at_import(name):
    """What importing a module imports; `torch.Tensor` for a name of another package."""
    for node in ast.parse(MODULES[name].read_text()).body:
        yield from imports_of(name, node, whole=True)


def test_suites_are_imported_without_torch():
    """Commands that only read records use suites for their metrics, and must not wait for torch.

    `import torch` alone is deferred by them (`bench/cli/start.py`); names of torch stand under
    `TYPE_CHECKING`, and what needs torch to be imported, such as `architecture`, in functions.
    """
    left, seen = ["suites.registry"], set()
    while left:
        name = left.pop()
        seen.add(name)
        taken = set(taken_at_import(name))
        heavy = {o for o in taken if o.startswith(("torch.", "torchvision", "scipy.stats", "timm"))}
        assert not heavy, f"{name} imports {heavy}"
        left += taken & MODULES.keys() - seen
