"""The house: which room may know which, and how large a room may grow. Read from the source by `ast`."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import confshift

SOURCE = Path(confshift.__file__).parent
FILES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}

FOUNDATION = {
    *("errors", "advice", "input_checks", "predictions", "scoring", "temperature", "joint"),
    *("refits", "recalibration", "measurement", "checkpoint", "tasks", "workers", "draws"),
}
FITTING = {"draws", "errors", "predictions", "scoring", "temperature", "joint", "refits"}
TOWERS = FOUNDATION | {"analysis", "findings", "storage", "reporting", "collection"}
FACADE = "confshift"  # the public names, lazily imported

#: A room (a folder, or a file at the top) and the rooms that it may import.
MAY_IMPORT = {
    "errors": set(),
    "draws": set(),
    "advice": set(),
    "input_checks": {"errors", "advice"},
    "tasks": {"errors", "input_checks"},
    "predictions": {"errors", "advice", "input_checks", "tasks"},
    "scoring": {"errors", "predictions"},
    "temperature": {"draws", "errors", "predictions", "scoring"},
    "joint": {"draws"},
    "refits": {"draws", "joint"},
    "recalibration": FITTING,
    "measurement": FITTING | {"recalibration"},
    "checkpoint": FOUNDATION - {"workers"},
    "workers": {"errors"},
    "analysis": FOUNDATION,
    "findings": FOUNDATION | {"analysis"},
    "storage": FOUNDATION,
    "collection": FOUNDATION | {"storage"},
    "reporting": FOUNDATION | {"analysis", "findings", "storage"},
    "demo": TOWERS | {FACADE},
    "cli": TOWERS | {FACADE, "demo"},
    "integrations": TOWERS | {FACADE},
    FACADE: TOWERS,
}

#: A third-party package and the rooms or files that may import it; `integrations` may import anything.
MAY_USE = {
    "numpy": {*TOWERS, "demo", "cli"},
    "pandas": {*TOWERS, "demo", "cli"},
    "scipy": {"analysis", "demo"},
    "sklearn": {"demo"},
    "torch": {"collection", "demo", "reporting/calibration_file.py"},
    "tqdm": {"collection", "demo"},
    "altair": {"reporting/charts/lazy.py"},
    "jinja2": {"reporting/page.py"},
    "vl_convert": {"reporting"},
    "PIL": {"reporting", "collection"},
    "joblib": {"workers.py", "cli"},
    "threadpoolctl": {"workers.py"},
    "pyarrow": {"storage/exporting.py", "storage/parquet.py"},
    "click": {"cli"},
    "IPython": {"reporting/page.py"},
}
#: Too heavy to be imported before they are needed: only inside functions, but for the rooms named.
LAZY = {"scipy": {"demo"}, "sklearn": {"demo"}, "pyarrow": set(), "joblib": set(), "threadpoolctl": set()}

#: What writes, renames or removes files stands in storage/disk.py. The others make these calls and no more.
MAY_WRITE = {
    "storage/disk.py": None,  # anything
    "storage/files.py": {"fcntl", "open", "os.open", "os.close", "os.dup", "os.O_RDWR", "unlink"},  # locks
    "storage/user_cache.py": {"mkdir"},
    "cli/pages.py": {"mkdir"},  # the folder of the demo's page
    "demo.py": {"tempfile"},
}
WRITING_MODULES = {"shutil", "tempfile", "fcntl", "msvcrt"}
WRITING_METHODS = {
    *("write_text", "write_bytes", "touch", "mkdir", "rmdir", "unlink", "chmod", "renames"),
    *("symlink_to", "hardlink_to", "makedirs", "tofile", "savez", "savez_compressed", "memmap"),
    *("open_memmap", "to_csv", "to_parquet", "to_pickle", "to_feather", "to_excel", "dump"),
}
HARMLESS_OS = {
    *("environ", "fsencode", "fspath", "getpid", "getuid", "name", "path", "PathLike", "cpu_count", "sep"),
    *("fstat", "listdir", "stat", "stat_result", "strerror", "register_at_fork"),
}

MAX_FILE = 250
#: A file under this that one other imports belongs into that one; adapters and charts stand alone by design.
MIN_FILE = 60
SMALL_BY_NAME = {"errors.py", "reporting/charts/runs.py"}
MAX_FUNCTION = 45
MAX_ADAPTER = 120


@cache
def tree(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def room(module):
    """Return the room of a dotted module path below the package: its first part."""
    return module.split(".")[0] if module else FACADE


def room_of_file(name):
    return FACADE if name == "__init__.py" else room(name.removesuffix(".py").replace("/", "."))


def module_of_file(name):
    return name.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", ".")


def is_module(dotted):
    path = dotted.replace(".", "/")
    return f"{path}.py" in FILES or f"{path}/__init__.py" in FILES


@cache
def nodes_of(tree):
    """Return all nodes of a tree, each with whether it is inside a function."""
    found, waiting = [], [(tree, False)]
    while waiting:
        node, inside = waiting.pop()
        found.append((node, inside))
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]
    return found


def imports(tree):
    """Yield every dotted name that is imported, with whether that happens inside a function."""
    for node, inside in nodes_of(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, inside


@cache
def own_imports(name):
    """Return the modules of the package that a file imports, "" being the facade."""
    found = set()
    for dotted, _ in imports(tree(name)):
        top, _, rest = dotted.partition(".")
        if top != "confshift" or rest == "__version__":
            continue
        while rest and not is_module(rest):  # a name in a module, a public name of the facade
            rest = rest.rpartition(".")[0]
        found.add(rest)
    return found


def writing_calls(tree):
    """Yield the name of each call or import that can write to the file system."""
    for node, _ in nodes_of(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            if node.attr not in HARMLESS_OS:
                yield f"os.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (f"os.{alias.name}" for alias in node.names if alias.name not in HARMLESS_OS)
        elif isinstance(node, ast.Call):
            yield from _writing_call(node)
    yield from (
        dotted.split(".")[0] for dotted, _ in imports(tree) if dotted.split(".")[0] in WRITING_MODULES
    )


def _writing_call(call):
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name == "open":
        # Path.open(mode) and open(path, mode): whatever is not plainly reading is taken for writing.
        place = 0 if isinstance(function, ast.Attribute) else 1
        given = [word.value for word in call.keywords if word.arg == "mode"] or call.args[place : place + 1]
        if any(not isinstance(mode, ast.Constant) or set(str(mode.value)) - set("rbt") for mode in given):
            yield "open"
    elif not isinstance(function, ast.Attribute) or ast.unparse(function.value).split(".")[0] == "files":
        return  # `files.` is storage/files.py: there the call stands
    elif name in WRITING_METHODS:
        yield name
    elif name in ("replace", "rename") and len(call.args) == 1 and not call.keywords:
        # Of a Path: str.replace takes two arguments, a table is renamed by keywords or by a plain name.
        if name == "replace" or not isinstance(call.args[0], ast.Constant):
            yield name
    elif name == "mmap" and not any(_reads_only(word) for word in call.keywords):
        yield "mmap"
    elif (
        name == "save"
        and isinstance(function.value, ast.Name)
        and function.value.id in ("np", "numpy", "torch")
    ):
        yield "save"


def _reads_only(keyword):
    return keyword.arg == "access" and ast.unparse(keyword.value).endswith("ACCESS_READ")


@cache
def code_lines(source):
    """Return the numbers of the lines that hold code: no blank line, comment or docstring."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings |= set(range(first.lineno, first.end_lineno + 1))
    idle = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in idle:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - docstrings


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def heavy_after(*statements):
    """Return which heavy packages a fresh interpreter has loaded after the statements."""
    heavy = "[name for name in ('torch', 'altair', 'sklearn', 'scipy.stats') if name in sys.modules]"
    return run_python("\n".join(["import sys", *statements, f"print(*{heavy})"]))


# ------------------------------------------------------------------------------------ who may know whom
def faults_of(check, names=FILES):
    """Return what is wrong with the files that fail a check, by their names."""
    found = {}
    for name in names:
        try:
            check(name)
        except AssertionError as error:
            found[name] = str(error)
    return found


def test_faults_are_those_of_the_files_that_fail():
    def check(name):
        assert name != "b", f"{name} is wrong"

    (fault,) = faults_of(check, ["a", "b", "c"]).items()
    assert fault[0] == "b"
    assert fault[1].startswith("b is wrong")


def points_one_way(name):
    here = room_of_file(name)
    assert here in MAY_IMPORT, f"{here} is a new room: write down here what it may import"
    wrong = {there or FACADE for there in own_imports(name) if room(there) not in MAY_IMPORT[here] | {here}}
    assert not wrong, f"{name} must not import {wrong}"


def test_arrows_point_one_way():
    assert faults_of(points_one_way) == {}


def test_the_architecture_document_shows_the_same_floors():
    text = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([\w, ]*)\|$", text, re.MULTILINE)
    shown = {room: {one.strip() for one in rooms.split(",") if one.strip()} for room, rooms in rows}
    inside = {
        name: rooms - {name} for name, rooms in MAY_IMPORT.items() if not {FACADE, "demo"} & {name, *rooms}
    }
    assert {name: rooms for name, rooms in shown.items() if name != "room"} == {
        name: rooms for name, rooms in inside.items() if name != "integrations"
    }


@pytest.mark.parametrize("name", ["architecture", "statistics"])
def test_a_document_names_only_files_that_there_are(name):
    text = (Path(__file__).parents[1] / "docs" / f"{name}.md").read_text(encoding="utf-8")
    files = {path.name for path in SOURCE.rglob("*")} | {
        path.name for path in Path(__file__).parent.glob("*.py")
    }
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.(?:py|js))`", text))
    assert named
    assert named <= files


def test_no_module_imports_itself_by_a_detour():
    # An import made inside a function counts: a cycle is a cycle.
    graph = {module_of_file(name): own_imports(name) - {""} for name in FILES if name != "__init__.py"}
    graph = {module: needed - {module} for module, needed in graph.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


def imports_others_where_they_live(name):
    here = room_of_file(name)
    if here == "integrations":
        return
    for dotted, inside in imports(tree(name)):
        package = dotted.split(".")[0]
        if package == "confshift" or package in sys.stdlib_module_names:
            continue
        assert package in MAY_USE, f"{package} is new: write down here which room may import it"
        assert {here, name} & MAY_USE[package], f"{name} must not import {package}"
        if package in LAZY and here not in LAZY[package]:
            assert inside, f"{name} must import {package} inside the function that needs it"


def test_other_packages_are_imported_only_where_they_live():
    assert faults_of(imports_others_where_they_live) == {}


def writes_where_it_may(name):
    allowed = MAY_WRITE.get(name, set())
    if allowed is not None:
        assert set(writing_calls(tree(name))) <= allowed


def test_system_calls_that_write_stand_in_one_file():
    assert faults_of(writes_where_it_may) == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("os.replace(a, b)", {"os.replace"}),
        ("from os import link", {"os.link"}),
        ("os.environ['A']; os.path.join(a)", set()),
        ("open(p, 'w')", {"open"}),
        ("open(p, mode=m)", {"open"}),
        ("open(p); open(p, 'rb'); p.open(); p.open('r')", set()),
        ("p.open('xb')", {"open"}),
        ("p.replace(q)", {"replace"}),
        ("p.rename(q)", {"rename"}),
        ("table.rename(columns=names); column.rename('samples')", set()),
        ("mmap.mmap(f, 0)", {"mmap"}),
        ("mmap.mmap(f, 0, access=mmap.ACCESS_READ)", set()),
        ("s.replace('a', 'b'); dataclasses.replace(s, a=1)", set()),
        ("import shutil", {"shutil"}),
        ("from tempfile import mkdtemp", {"tempfile"}),
        ("p.write_bytes(b)", {"write_bytes"}),
        ("np.save(p, a)", {"save"}),
        ("p.unlink()", {"unlink"}),
        ("files.DISK.unlink(p)", set()),
        ("report.save(p); p.read_text()", set()),
    ],
)
def test_a_call_that_writes_is_told_from_one_that_reads(code, found):
    assert set(writing_calls(ast.parse(code))) == found


# ------------------------------------------------------------------------------------- names and sizes
def has_a_name_of_its_own(name):
    parts = set(Path(name).with_suffix("").parts)
    functions = {public for public in confshift.__all__ if public.islower()}
    assert functions == {"inspect", "compare", "summarize", "diagnose", "report", "plot", "calibrate"}
    assert not parts & functions, "such a module shadows the function of that name"
    assert not parts & {"utils", "util", "helpers", "helper", "base", "common", "misc"}


def test_no_module_is_named_like_a_public_function_or_like_nothing():
    assert faults_of(has_a_name_of_its_own) == {}


def is_no_crumb(name):
    if Path(name).name == "__init__.py" or name in SMALL_BY_NAME or room_of_file(name) == "integrations":
        return
    users = [
        other for other in FILES if other != "__init__.py" and module_of_file(name) in own_imports(other)
    ]
    lines = len(code_lines(FILES[name].read_text(encoding="utf-8")))
    assert lines >= MIN_FILE or len(users) != 1, f"{name} has {lines} lines of code: merge it into {users[0]}"


def test_no_file_is_a_crumb():
    assert faults_of(is_no_crumb) == {}


def fits_its_room(name):
    lines = code_lines(FILES[name].read_text(encoding="utf-8"))
    assert len(lines) <= MAX_FILE, f"{name} has {len(lines)} lines of code: split it"
    for node, _ in nodes_of(tree(name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = len(lines & set(range(node.lineno, node.end_lineno + 1)))
            assert length <= MAX_FUNCTION, f"{name}: {node.name} has {length} lines of code"


def test_no_file_and_no_function_outgrows_its_room():
    assert faults_of(fits_its_room) == {}


@pytest.mark.parametrize("name", [name for name in FILES if room_of_file(name) == "integrations"])
def test_no_adapter_of_a_trainer_does_what_the_door_could(name):
    lines = len(code_lines(FILES[name].read_text(encoding="utf-8")))
    assert lines <= MAX_ADAPTER or name.endswith("door.py"), f"{name} has {lines} lines of code"


def test_lines_of_code_are_counted_without_blanks_comments_and_docstrings():
    source = (
        '"""Doc\nstring."""\n\n# comment\ndef f(a,\n      b):\n    """Doc."""\n    return """x\n\ny"""  # c\n'
    )
    assert code_lines(source) == {5, 6, 8, 9, 10}


# ------------------------------------------------------------------------------------- what stays unloaded
def test_importing_the_package_loads_nothing_heavy():
    assert heavy_after("import confshift") == []


@pytest.mark.parametrize(
    "rooms",
    [
        pytest.param(FOUNDATION | {"storage"}, id="reading a run"),
        pytest.param(FOUNDATION | {"analysis", "findings"}, id="judging it"),
    ],
)
def test_reading_and_judging_a_run_load_nothing_heavy(rooms):
    modules = [module_of_file(name) for name in FILES if room_of_file(name) in rooms]
    assert heavy_after(*(f"import confshift.{module}" for module in modules)) == []


def test_reporting_and_the_command_line_load_no_torch_no_scikit_learn_and_no_altair():
    modules = [module_of_file(name) for name in FILES if room_of_file(name) in ("reporting", "cli")]
    assert len(modules) > 25
    # One interpreter imports them in turn: the first line printed is the module to blame.
    offenders = run_python(
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(f'confshift.{module}')\n"
        "    print(*(module for name in ('torch', 'sklearn', 'altair') if name in sys.modules))\n"
    )
    assert offenders == []


def test_help_on_the_command_line_loads_nothing_heavy():
    show_help = "CliRunner().invoke(main, ['--help'], catch_exceptions=False)"
    assert (
        heavy_after(
            "from click.testing import CliRunner",
            "from confshift.cli import main",
            f"shown = {show_help}",
            "assert shown.exit_code == 0 and 'report' in shown.output, shown.output",
        )
        == []
    )


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (SOURCE / "reporting" / "assets").iterdir() if path.suffix == ".js")
)
def test_no_script_outgrows_its_room(name):
    lines = (SOURCE / "reporting" / "assets" / name).read_text(encoding="utf-8").split("\n")
    code = [line for line in lines if line.strip() and not line.strip().startswith("//")]
    assert len(code) <= MAX_FILE, f"{name} has {len(code)} lines of code: split it"
