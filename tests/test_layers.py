"""The house: each package stands on the floors below it; nothing runs back up, nothing in a circle, no side doors."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FLOORS = (
    (
        "agreement",
        "dotted",
        "extras",
        "files",
        "lazy",
        "random_state",
        "rounding",
        "sources",
        "tensor_files",
        "tensors",
    ),
    ("ivon", "likelihoods", "lora", "measures", "models", "schedule", "stream"),
    ("posterior", "scenarios"),
    ("kprior", "memory", "merging", "prediction"),
    ("conformal", "serving"),
    ("algorithm",),
    ("integrations", "learner", "sklearn"),
    ("configuration", "inspection"),
    ("comparison", "strategies"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS, start=1) for room in floor}
CORE = [room for room in FLOOR if FLOOR[room] <= FLOOR["algorithm"] and room != "scenarios"]
PUBLIC = {
    "bayesdual.integrations.transformers",
    "bayesdual.scenarios.datasets",
    "bayesdual.strategies.baselines",
}  # and every room
FILES = {
    ".".join(("bayesdual", *path.relative_to(folder).with_suffix("").parts)): path
    for folder, part in (("bayesdual", "."), (".", "scenarios"), (".", "strategies"))  # links to these are in bayesdual
    for folder in [REPOSITORY / folder]
    for path in sorted((folder / part).rglob("*.py"))
}


def names_imported(text):
    """The dotted names that a file imports, at its top or later: ``from a import b`` imports ``a.b``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    return name.split(".")[1] if name.startswith("bayesdual.") else None


def arrows():
    """(file, name imported) for each import from another room; the package's own face gives names of all rooms."""
    for file, path in FILES.items():
        if file != "bayesdual.__init__":
            for name in names_imported(path.read_text()):
                if room_of(name) in FLOOR and room_of(name) != room_of(file):
                    yield file, name


def test_every_room_has_a_floor():
    assert len(FILES) > 80
    assert {room_of(file) for file in FILES} - {"__init__"} == set(FLOOR)


def test_no_arrow_runs_back_up():
    up = [f"{file} imports {name}" for file, name in arrows() if FLOOR[room_of(name)] > FLOOR[room_of(file)]]
    assert not up


def test_rooms_are_tied_in_no_circle():
    below = {room: set() for room in FLOOR}
    for file, name in arrows():
        below[room_of(file)].add(room_of(name))
    assert len(list(TopologicalSorter(below).static_order())) == len(FLOOR)  # raises CycleError, which names the circle


def test_the_core_knows_neither_hosts_nor_scenarios():
    known = {room_of(name) for file, name in arrows() if room_of(file) in CORE}
    assert known and known <= set(CORE)
    asked = {
        f"{file} imports {name}"
        for file, path in FILES.items()
        if room_of(file) in CORE
        for name in names_imported(path.read_text())
        if name.split(".")[0] in ("avalanche", "jsonargparse", "rich")
    }
    assert not asked


def test_a_package_is_entered_by_its_front_door():
    inner = {file.removesuffix(".__init__") for file in FILES if file.count(".") > 1} - PUBLIC
    inner -= {f"bayesdual.{room}" for room in FLOOR}
    given = {  # a package may give a function by the name of its module
        f"bayesdual.{room}.{name.rpartition('.')[2]}"
        for room in FLOOR
        if (face := FILES.get(f"bayesdual.{room}.__init__"))
        for name in names_imported(face.read_text())
    }
    side_doors = [
        f"{file} imports {name}" for file, name in arrows() if name.rpartition(".")[0] in inner or name in inner - given
    ]
    assert not side_doors
