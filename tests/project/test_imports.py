"""The import ladder: what each file may know of the others, and of the world."""

import ast
import sys
from pathlib import Path

import pytest

import sharpzo_edge
from support.processes import finish

ROOT = Path(sharpzo_edge.__file__).parent
WORKSTATION = {"torch", "onnx", "open_clip", "sharpzo_export"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(module: str) -> list[tuple[str, bool]]:
    """Absolute names of what a module imports, and whether a function of it does (lazily)."""
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef)
        for inner in ast.walk(outer)
        if inner is not outer
    }
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append((inner if inner in MODULES else base, node in lazy))
    return found


def tops(module: str) -> set[str]:
    return {name.partition(".")[0] for name, _ in imports_of(module)}


def test_only_the_export_command_knows_the_workstation():
    """It imports the workstation's modules only when it runs."""
    found = [
        (module, name, lazy)
        for module in MODULES
        for name, lazy in imports_of(module)
        if name.partition(".")[0] in WORKSTATION
    ]
    assert {(module, lazy) for module, _, lazy in found} == {("sharpzo_edge.cli", True)}
    assert {name.partition(".")[0] for _, name, _ in found} == {"sharpzo_export"}


@pytest.mark.parametrize(
    ("library", "owner"),
    [
        *(("onnxruntime", "clip.quiet_onnxruntime"), ("jinja2", "report.render")),
        *(("paho", "watch.mqtt"), ("watchdog", "watch.changes")),
        ("cryptography", "fleet.certificates"),
    ],
)
def test_a_heavy_library_has_one_owner(library, owner):
    assert [m for m in MODULES if library in tops(m)] == [f"sharpzo_edge.{owner}"]


# The rooms from the bottom up, as docs/architecture.md has them: each knows itself and those before it.
LADDER = (
    (
        *("errors", "libraries", "types", "seeds", "process_memory", "machine", "processor", "storage"),
        *("wording", "version"),
    ),
    ("search",),
    ("heads",),
    ("run",),
    ("clip",),
    ("pictures",),
    ("memory",),
    ("requests",),
    ("tuning",),
    ("demo",),
    ("report",),
    ("commands",),
    ("watch",),
    ("fleet",),
    ("page",),
    ("printing", "terminal", "options"),
    ("cli", "__main__"),
)
FACE = "sharpzo_edge"  # its public names are taken from anywhere, lazily


def room(module: str) -> str:
    return module.removeprefix(f"{FACE}.").partition(".")[0]


def test_no_room_knows_one_above_it():
    step = {name: i for i, rooms in enumerate(LADDER) for name in rooms}
    seen = {room(module) for module in MODULES} - {FACE}
    assert seen == set(step)
    upwards = [
        (module, name)
        for module in MODULES
        for name, _ in imports_of(module)
        if FACE not in (module, name) and name in MODULES and step[room(name)] > step[room(module)]
    ]
    assert not upwards


def test_the_search_knows_nothing_but_numpy_types_and_errors():
    for module in MODULES:
        if room(module) == "search":
            for name, _ in imports_of(module):
                top = name.partition(".")[0]
                known = room(name) in ("search", "types", "errors")
                assert top == "numpy" or top in sys.stdlib_module_names or known, (module, name)


def test_no_module_imports_itself_by_a_detour():
    graph = {m: {name for name, _ in imports_of(m) if name in MODULES} - {m} for m in MODULES}
    assert graph["sharpzo_edge.commands.tune"] >= {
        "sharpzo_edge.pictures.features",
        "sharpzo_edge.tuning.prepare",
    }  # it sees something
    while leaves := [m for m, known in graph.items() if not known & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"a cycle among {sorted(graph)}"


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh process holds after it ran `code`."""
    report = f"{code}\nimport sys\nprint('MODULES', *{{m.partition('.')[0] for m in sys.modules}})"
    return set(finish([sys.executable, "-c", report]).stdout.splitlines()[-1].split())


def test_the_command_line_starts_light():
    assert not modules_after("import sharpzo_edge.cli") & {"numpy", "onnxruntime", "rich", "PIL"}


def test_pillow_is_where_pictures_are_decoded_and_cropped():
    users = [module for module in MODULES if "PIL" in tops(module)]
    assert users == ["sharpzo_edge.clip.decoding", "sharpzo_edge.clip.preprocess"]


def test_dask_is_imported_in_the_fleets_room_alone():
    users = {module for module in MODULES if tops(module) & {"dask", "distributed"}}
    assert users and all(room(module) == "fleet" for module in users)


@pytest.mark.oldest_onnxruntime
def test_a_whole_evaluation_never_meets_the_workstation(pictures):
    loaded = modules_after(
        "from sharpzo_edge import evaluate\n"
        f"result = evaluate({str(ROOT / 'demo' / 'bundle')!r}, {str(pictures)!r})\n"
        "assert result.n_images == 6 and result.n_classes == 2, result"
    )
    assert "onnxruntime" in loaded
    assert not loaded & WORKSTATION
