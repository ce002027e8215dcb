"""What keeps the packages apart: who imports whom, what is imported late, what things are called."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("sim", "emulator", "real")
PACKAGES = ("orionbed", *BACKENDS, "reports")
HEAVY = {"torch", "matplotlib", "pandas"}
TORCH = "2.13.0"
# Classes of torch modules need torch when they are defined; these files are themselves imported late.
LATE_ITSELF = {
    "orionbed/training/boundaries/crossing.py",
    "orionbed/training/boundaries/ends.py",
    "orionbed/training/layers.py",
    "orionbed/training/modules.py",
    *(f"orionbed/transport/{name}.py" for name in ("collectives", "group", "staging", "works")),
    "real/static/modules.py",
    "real/static/pipelining.py",
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(tree: ast.AST, *, late: bool) -> Iterator[str]:
    """Top-level names of the packages that a module imports; `late`: also those inside its functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif late or not (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types(node)):
            yield from imported(node, late=late)


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Full names of the modules that a module imports when it is imported itself."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), path.name)


def test_the_reader_of_imports_tells_early_from_late() -> None:
    tree = ast.parse(
        "import a.b\nif x:\n    from c.d import e\nclass C:\n    import f\n    def g(self):\n        import h"
    )
    assert list(imported(tree, late=False)) == ["a", "c", "f"]
    assert list(imported(tree, late=True)) == ["a", "c", "f", "h"]
    assert list(imported(ast.parse("if TYPE_CHECKING:\n    import a"), late=False)) == []


@pytest.mark.parametrize("package", [*BACKENDS, "reports"])
def test_backends_and_reports_import_orionbed_and_never_each_other(package: str) -> None:
    others = {*BACKENDS, "reports"} - {package}
    for path in modules(package):
        assert others.isdisjoint(imported(parsed(path), late=True)), path


def test_orionbed_names_no_backend_but_where_they_are_listed() -> None:
    loading = []
    for path in modules("orionbed"):
        tree = parsed(path)
        assert set(BACKENDS).isdisjoint(imported(tree, late=True)), path
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if names & {"import_module", "__import__"}:
            loading.append(path.relative_to(ROOT).as_posix())
    assert loading == ["orionbed/backends.py"]


def test_orionbed_imports_reports_late_and_only_for_the_command_line() -> None:
    for path in modules("orionbed"):
        assert "reports" not in set(imported(parsed(path), late=False)), path
        if "reports" in set(imported(parsed(path), late=True)):
            assert path.parent == ROOT / "orionbed" / "cli", path


@pytest.mark.parametrize("package", PACKAGES)
def test_heavy_packages_are_imported_late(package: str) -> None:
    for path in modules(package):
        if path.relative_to(ROOT).as_posix() in LATE_ITSELF:
            continue
        tree = parsed(path)
        assert HEAVY.isdisjoint(imported(tree, late=False)), path
        early = {module for module in imported_modules(tree) if module.replace(".", "/") + ".py" in LATE_ITSELF}
        assert not early, path


def test_the_simulator_never_imports_torch() -> None:
    for path in modules("sim"):
        assert "torch" not in set(imported(parsed(path), late=True)), path


def test_the_scenarios_are_data() -> None:
    assert modules("scenarios") == []


def test_looking_and_checking_load_nothing_heavy(tmp_path: Path) -> None:
    code = """\
import sys
from orionbed.cli import main
for command in (["--help"], ["schedule", "--help"], ["--version"], ["check", "minimal"], ["ls"], ["schema"], ["doctor"],
                ["show", "x"], ["schedule", "zb-2p", "--stages", "4", "--microbatches", "8"]):
    sys.argv = ["orionbed", *command]
    try:
        main()
    except SystemExit:
        pass
    heavy = {"torch", "matplotlib", "pandas"} & set(sys.modules)
    assert not heavy, (command, heavy)
    if command == ["--help"]:
        assert "numpy" not in sys.modules and "pydantic" not in sys.modules, "help waits for nothing"
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "ok  minimal" in ended.stdout


def test_importing_the_packages_does_nothing_heavy() -> None:
    code = f"import sys, {', '.join(PACKAGES)}; assert not {HEAVY} & set(sys.modules), set(sys.modules) & {HEAVY}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("folder", [*PACKAGES, "benchmarks", "tests", "docs"])
def test_no_module_is_named_like_one_of_the_standard_library(folder: str) -> None:
    taken = set(sys.stdlib_module_names) - {"__main__", "__init__"}
    for path in (ROOT / folder).rglob("*.py"):
        names = {path.stem, path.parent.name if path.parent != ROOT / folder else folder}
        assert names.isdisjoint(taken), path


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed_and_every_folder_of_it_a_package(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    for path in modules(package):
        assert (path.parent / "__init__.py").is_file(), path


def tracked() -> list[Path]:
    """The files of the checkout that git knows."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


SOMEBODYS_PATH = re.compile(r"(?<![\w.:/-])(?:/(?:home|Users)/\w|/(?:root|work)/\w|~/\w|[A-Z]:\\Users\\)")


@pytest.mark.parametrize("text", ["see /home/x/y", "'/Users/x'", '"/root/.x', r"C:\Users\x", "(~/x)"])
def test_somebodys_path_is_recognised(text: str) -> None:
    assert SOMEBODYS_PATH.search(text.replace("/.", "/"))


@pytest.mark.parametrize("text", ["https://example.org/home/x", "bytes/home", "./root/x"])
def test_other_paths_are_left_alone(text: str) -> None:
    assert not SOMEBODYS_PATH.search(text)


def test_no_tracked_file_names_a_path_of_somebodys_machine() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if SOMEBODYS_PATH.search(line)
        ]
    assert found == []


def test_nothing_generated_is_tracked() -> None:
    generated = re.compile(r"(^|/)(__pycache__|\.venv|runs|dist|[^/]*\.egg-info|\.[a-z]+_cache|\.hypothesis)/")
    assert [path for path in tracked() if generated.search(path.relative_to(ROOT).as_posix())] == []


def test_torch_is_the_version_asked_for() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip(
            f"torch is not installed: `make test` installs torch {TORCH}, everything but emulator and real runs"
        )
    ended = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__version__)"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().partition("+")[0] == TORCH
