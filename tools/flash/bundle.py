"""One module out of protocol/ and firmware/, that loads into as little of a node's heap as possible.

On a node every module, every name and every constant costs heap, used or not; the sources are written for readers. So
before mpy-cross compiles them, seven things happen to their syntax trees, none of which changes what the code does:

1. Docstrings, annotations and CPython's side of protocol/compat.py go; without viper, the decorators too.
2. All modules become one: `frame.u16` is the name `frame_u16` of the bundle.
3. Integer constants are put in where they are used.
4. What the node never mentions goes: the gateway's half of a format, a window for tests.
5. Small functions, and methods with one call, are put in where they are called (inline.py): a function costs a node
   more than a hundred bytes beside its code.
6. Our own names become words that MicroPython's ROM holds anyway (rename.py).
7. Short strings are made of bytes, which MicroPython does not intern (strings.py).
"""

import ast
import functools
from collections.abc import Collection, Mapping
from pathlib import Path

import firmware
import protocol
from tools.flash import cold
from tools.flash.inline import inline_calls
from tools.flash.names import VIPER_NAMES, foreign_names, local_names, mentioned, names_of
from tools.flash.rename import Names, rename
from tools.flash.strings import without_names

ENTRIES = {
    "main": {"run"},
    "start": {"prepare"},
    "link": {"Link", "start_node", "load_cold", "run_cold", "i16", "member_reading", "centred", "convolve"},
    "layerwise": {"Layerwise"},
    "change": {"Change"},
    "event": {"Event"},
    "watch": {"Watch"},
    "encryption": {"open_tls"},
    "sensor_ds18b20": {"Ds18b20"},
    "sensor_offset": {"Offset"},
    "sensor_replay": {"Replay"},
    "sensor_simulated": {"Simulated"},
}
"""The bundles, each named for the firmware module that it is built around, and the globals used from outside.

They import each other inside functions only: main brings in start, which is forgotten again, and link, which stays and
loads its cold functions (cold.py) when they are called. With the first cycle link brings in the mode's module, which
takes from link what both need.
"""
LASTING = ("link", "layerwise", "change", "event", "watch")
"""Those that stay, and so leave their cold functions out; the others are forgotten again, or hold but a few."""
EXPORTS = {"prepare", "start_node", "load_cold", "run_cold", "i16", "member_reading", "centred", "convolve"}
EXPORTS |= {"open_tls", "Link", "Layerwise", "Change", "Event", "Watch", "Ds18b20", "Offset", "Replay", "Simulated"}
"""Those that bundles alone use, so that they may have other names."""
METHODS = {
    "link": {"feed", "step", "send", "go", "header", "enter", "abstain_unless_current", "tell_gateway", "fault"}
    | {"take", "notice"},
    "layerwise": {"begin", "feed", "step"},
    "change": {"begin", "feed", "step"},
    "event": {"begin", "feed", "step", "take_word", "differs", "abnormal"},
    "watch": {"open_cycle", "challenge", "take"},
    "encryption": {"secured", "send_some"},
    "sensor_ds18b20": {"read"},
    "sensor_offset": {"read"},
    "sensor_replay": {"read"},
    "sensor_simulated": {"read"},
}
"""By bundle, the methods that others call; none of these names is put in anywhere, whichever class has it."""
APART = {"beacon_unpack"}
"""Functions that are not put in where they are called: a full heap has room for two short pieces before one long."""
_OUTSIDE = set().union(*ENTRIES.values())
_CALLED = set().union(*METHODS.values())
_DEFINITIONS = ast.FunctionDef | ast.ClassDef | ast.Assign
_DEVICE_TEST = "sys.implementation.name == 'micropython'"


def bundle(name: str, viper: bool = True) -> Mapping[str, str]:
    """The source of one of the bundles, and of each module that it loads for a call, by the modules' names.

    Args:
        name: a key of ENTRIES.
        viper: False for boards whose MicroPython has no viper emitter.
    """
    return _made(name, viper)[0]


def attributes(name: str) -> Mapping[str, str]:
    """What attributes of ours are called in a bundle, by their names in the sources; those left out keep them."""
    return _made(name, True)[1]


def module(name: str) -> str:
    """What the module of a bundle is called on a node."""
    return _names().modules[name]


def exported(name: str) -> str:
    """What a global that bundles take from each other is called on a node."""
    return _names().exports[name]


@functools.cache
def _made(name: str, viper: bool) -> tuple[Mapping[str, str], Mapping[str, str]]:
    trees, names = _trees(viper), _names()
    lasts, keep = name in LASTING, METHODS.get(name, set())
    whole = _CALLED | APART
    body: list[ast.stmt] = []
    for module in _in_order(f"firmware.{name}", trees):
        body += _Merge(module, trees).body()
    body = _unique_imports(_from_link(body) if lasts and name != "link" else body)
    body = _without_unused(_put_constants_in(body), keep)
    body = _without_unused(inline_calls(body, whole), keep)
    body = cold.move_out(body, ENTRIES[name] | keep, foreign_names(body)) if lasts else cold.without_marks(body)
    parts = _inlined_again(cold.split(name, body, ENTRIES[name]), whole)
    others = LASTING[: LASTING.index(name)] if lasts else ()
    taken = set().union(*(bundle(other, viper) for other in others))
    modules, called = rename(body, parts, names, _OUTSIDE - EXPORTS, taken)
    return {part: _text(module, messages=not lasts) for part, module in modules.items()}, called


@functools.cache
def _names() -> Names:
    trees = _trees(True)
    bundles = {entry: _in_order(f"firmware.{entry}", trees) for entry in ENTRIES}
    return Names(trees, bundles, EXPORTS)


def _trees(viper: bool) -> dict[str, ast.Module]:
    return {module: _bare(ast.parse(path.read_text()), viper) for module, path in _sources().items()}


def _from_link(body: list[ast.stmt]) -> list[ast.stmt]:
    """What link has for others is taken from there."""
    there = ENTRIES["link"]
    imports = [ast.ImportFrom("link", [ast.alias(name)], 0) for name in sorted(there & mentioned(body) | {cold.LOAD})]
    return [*imports, *(statement for statement in body if not names_of(statement) & there)]


def _text(module: ast.Module, messages: bool) -> str:
    module.body = without_names(module.body, messages)
    return ast.unparse(ast.fix_missing_locations(module)) + "\n"


def _inlined_again(modules: dict[str, list[ast.stmt]], methods: set[str]) -> dict[str, list[ast.stmt]]:
    """The parts of a bundle with what each of them calls once put in: there are fewer calls in a part than in all."""
    result = {}
    for name, body in modules.items():
        others = mentioned([statement for other in modules if other != name for statement in modules[other]])
        keep = others | methods | _OUTSIDE
        result[name] = _without_unused(inline_calls(body, keep), keep)
    return result


def _sources() -> dict[str, Path]:
    return {
        f"{package.__name__}.{path.stem}": path
        for package in (protocol, firmware)
        for path in sorted(Path(package.__path__[0]).glob("*.py"))
        if path.stem != "__init__"
    }


def _in_order(entry: str, trees: dict[str, ast.Module]) -> list[str]:
    """The entry module and all it imports at its top, each behind what it needs."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        for imported in sorted(_our_imports(trees[name], trees)):
            if imported not in ordered:
                visit(imported)
        ordered.append(name)

    visit(entry)
    return ordered


def _our_imports(tree: ast.Module, trees: dict[str, ast.Module]) -> set[str]:
    found = set()
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom):
            names = {f"{statement.module}.{alias.name}" for alias in statement.names} | {statement.module or ""}
            found |= names & trees.keys()
    return found


# 1: bare


def _bare(tree: ast.Module, viper: bool) -> ast.Module:
    body: list[ast.stmt] = []
    for statement in tree.body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == _DEVICE_TEST:
            body += statement.body
        elif not (isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test)):
            body.append(statement)
    # Viper knows its pointer types without a definition; the plain kernel calls these.
    tree.body = [s for s in body if not (viper and isinstance(s, _DEFINITIONS) and names_of(s) & VIPER_NAMES)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if not viper:
                node.decorator_list = [d for d in node.decorator_list if ast.unparse(d) != "micropython.viper"]
            if not any(ast.unparse(d) == "micropython.viper" for d in node.decorator_list):  # viper goes by them
                node.returns = None
                for argument in node.args.args:
                    argument.annotation = None
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            node.body = [s for s in node.body if not _is_docstring(s)] or [ast.Pass()]
            node.body = [_bare_assignment(statement) for statement in node.body]
        if isinstance(node, ast.ClassDef):
            node.body = [s for s in node.body if not ast.unparse(s).startswith("__slots__")]
    return tree


def _bare_assignment(statement: ast.stmt) -> ast.stmt:
    if isinstance(statement, ast.AnnAssign) and statement.value:
        return ast.copy_location(ast.Assign([statement.target], statement.value), statement)
    return statement


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


# 2: one module


class _Merge(ast.NodeTransformer):
    """Gives a module's globals their names in the bundle, and resolves what it imports of ours."""

    def __init__(self, name: str, trees: dict[str, ast.Module]) -> None:
        self._tree = trees[name]
        self._modules: dict[str, str] = {}
        self._globals = {own: _bundle_name(name, own) for own in _top_level_names(self._tree)}
        self._locals: list[set[str]] = []
        for statement in self._tree.body:
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if f"{statement.module}.{alias.name}" in trees:
                        self._modules[alias.name] = f"{statement.module}.{alias.name}"
                    elif statement.module in trees and alias.name not in VIPER_NAMES:
                        self._globals[alias.name] = _bundle_name(statement.module, alias.name)
        self._ours = trees.keys()

    def body(self) -> list[ast.stmt]:
        """The module's statements, without its imports of ours."""
        kept = [s for s in self._tree.body if not self._is_our_import(s)]
        return [self.visit(statement) for statement in kept]

    def _is_our_import(self, statement: ast.stmt) -> bool:
        if not isinstance(statement, ast.ImportFrom):
            return False
        return statement.module in self._ours or f"{statement.module}.{statement.names[0].name}" in self._ours

    def _is_local(self, name: str) -> bool:
        return any(name in scope for scope in self._locals)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if not self._locals and not getattr(node, "is_method", False):
            node.name = self._globals.get(node.name, node.name)
        self._locals.append(local_names(node))
        self.generic_visit(node)
        self._locals.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._globals.get(node.name, node.name)
        for statement in node.body:
            statement.is_method = True  # type: ignore[attr-defined]
        self.generic_visit(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self._globals and not self._is_local(node.id):
            node.id = self._globals[node.id]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        """An import of ours inside a function is that of another bundle."""
        return ast.Import([ast.alias(node.names[0].name)]) if self._is_our_import(node) else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in self._modules and not self._is_local(node.value.id):
            return ast.Name(_bundle_name(self._modules[node.value.id], node.attr), node.ctx)
        self.generic_visit(node)
        return node


def _bundle_name(module: str, name: str) -> str:
    if name in _OUTSIDE or name in VIPER_NAMES:
        return name
    return f"{module.split('.')[1]}_{name}"


def _top_level_names(tree: ast.Module) -> set[str]:
    names = {s.name for s in tree.body if isinstance(s, ast.FunctionDef | ast.ClassDef)}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return names


def _unique_imports(body: list[ast.stmt]) -> list[ast.stmt]:
    """Each import of a foreign module once, at the top."""
    imports = {ast.unparse(s): s for s in body if isinstance(s, ast.Import | ast.ImportFrom)}
    return [*imports.values(), *(s for s in body if not isinstance(s, ast.Import | ast.ImportFrom))]


# 3: constants


def _put_constants_in(body: list[ast.stmt]) -> list[ast.stmt]:
    values: dict[str, int] = {}
    kept = []
    for statement in body:
        value = None
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            value = _integer(statement.value, values)
        if value is None:
            kept.append(_PutIn(values).visit(statement))
        else:
            assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
            values[statement.targets[0].id] = value
    return kept


def _integer(node: ast.expr, known: dict[str, int]) -> int | None:
    """The value of an expression of integers, known constants and `const(...)`; None for anything else."""
    if {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - known.keys() - {"const"}:
        return None
    if any(isinstance(n, ast.Attribute | ast.Subscript) for n in ast.walk(node)):
        return None
    value = eval(ast.unparse(node), {"const": lambda x: x}, dict(known))  # our own source, checked just above
    return value if type(value) is int else None


class _PutIn(ast.NodeTransformer):
    def __init__(self, values: dict[str, int]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(self._values[node.id]) if node.id in self._values else node


# 4: nothing that the node never mentions


def _without_unused(body: list[ast.stmt], keep: Collection[str] = ()) -> list[ast.stmt]:
    while True:
        used = mentioned(body) | _OUTSIDE | set(keep)
        kept = [statement for statement in body if names_of(statement) & used]
        dropped = len(kept) < len(body)
        for statement in kept:
            if isinstance(statement, ast.ClassDef):
                methods = [m for m in statement.body if names_of(m) & used or _is_special(m)]
                dropped |= len(methods) < len(statement.body)
                statement.body = methods or [ast.Pass()]
        body = kept
        if not dropped:
            return body


def _is_special(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or any(name.startswith("__") for name in names_of(statement))
