"""python/specmoe/__init__.pyi says what the module has: names, kinds, parameters, which of them have defaults."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import specmoe

STUB = Path(specmoe.__file__).with_name("__init__.pyi")
SPECIAL = {
    "__call__",
    "__len__",
    "__dlpack__",
    "__dlpack_device__",
}  # methods with such names that a stub has to declare
INHERITED = {name for name in dir(object)} | {"__module__", "__dict__", "__weakref__"}


def stub_parameters(function: ast.FunctionDef) -> list[tuple[str, bool]]:
    """(name, has a default) of each parameter."""
    names = [argument.arg for argument in function.args.args]
    bare = len(names) - len(function.args.defaults)
    named = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return [(name, i >= bare) for i, name in enumerate(names)] + [(a.arg, d is not None) for a, d in named]


def module_parameters(function) -> list[tuple[str, bool]]:
    """The same of a function, written in Python or by pybind11 (its signature is its docstring's first line)."""
    if inspect.isfunction(function):
        parameters = inspect.signature(function).parameters.values()
        return [
            (p.name, p.default is not p.empty)
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]
    signature = function.__doc__.split("\n")[0]
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    # Commas inside annotations and defaults stand in brackets or quotes.
    flat = re.sub(r"'[^']*'", "''", inside)
    while (shorter := re.sub(r"\[[^\[\]]*\]|\([^()]*\)", "", flat)) != flat:
        flat = shorter
    parameters = [part.strip() for part in flat.split(",") if part.strip() not in ("", "*")]
    return [(part.split(":")[0].split("=")[0].strip(), "=" in part) for part in parameters]


def is_property(function: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in function.decorator_list)


def class_differences(name: str, stub: ast.ClassDef, actual: type) -> list[str]:
    found = []
    overloads = [node for node in stub.body if isinstance(node, ast.FunctionDef)]
    members = {node.name: node for node in overloads}
    public = {key for key in vars(actual) if not key.startswith("_")} | (SPECIAL & set(vars(actual)))
    declared = set(members) - {"__init__"}
    found += [f"{name}.{key}: not in the stub" for key in sorted(public - declared)]
    found += [f"{name}.{key}: not in the module" for key in sorted(declared - public)]
    for key in sorted(declared & public):
        member = vars(actual)[key]
        if isinstance(member, property) != is_property(members[key]):
            found.append(f"{name}.{key}: a property in one, a method in the other")
        elif not isinstance(member, property) and key != "__len__":
            for node in overloads:
                found += function_differences(f"{name}.{key}", node, member) if node.name == key else []
    if "__init__" in members and len(members["__init__"].args.args) > 1:
        found += function_differences(f"{name}()", members["__init__"], actual.__init__)
    return found


def function_differences(name: str, stub: ast.FunctionDef, actual) -> list[str]:
    wanted, got = stub_parameters(stub), module_parameters(actual)
    return [] if wanted == got else [f"{name}: stub {wanted}, module {got}"]


def differences(text: str) -> list[str]:
    found = []
    nodes = ast.parse(text).body
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    for name in specmoe.__all__:
        actual = getattr(specmoe, name)
        if isinstance(actual, type):
            missing = name not in classes
            found += [f"{name}: not in the stub"] if missing else class_differences(name, classes[name], actual)
        elif callable(actual):
            missing = name not in functions
            found += [f"{name}: not in the stub"] if missing else function_differences(name, functions[name], actual)
    found += [
        f"{name}: not in the module"
        for name in [*classes, *functions]
        if name not in {*specmoe.__all__, "_SpeaksDLPack"}
    ]
    return found


def test_stub_and_module_agree():
    assert differences(STUB.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("def as_dict", "def as_dictionary", "ModelInfo.as_dict"),
        ("batch: int = ...,\n        on_text", "batches: int = ...,\n        on_text", "Engine.generate"),
        ("add_special: bool = ...", "add_special: bool", "Tokenizer.encode"),
        ("class Proof:", "class Proofs:", "Proof"),
        ("    @property\n    def spec", "    def spec", "Engine.spec"),
    ],
)
def test_a_wrong_stub_is_noticed(old, new, named):
    text = STUB.read_text()
    assert old in text
    assert any(line.startswith(named) for line in differences(text.replace(old, new, 1)))


def test_everything_public_is_documented():
    for name in specmoe.__all__:
        item = getattr(specmoe, name)
        if not callable(item):
            continue
        assert item.__doc__, name
        for key, member in vars(item).items() if isinstance(item, type) else []:
            if not key.startswith("_") and not callable(getattr(Exception, key, None)):
                assert member.__doc__ and not member.__doc__.endswith(") -> None\n"), f"{name}.{key}"


def test_the_package_is_typed():
    assert STUB.with_name("py.typed").exists()
