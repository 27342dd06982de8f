"""One module out of protocol/ and firmware/, that loads into as little of a node's heap as possible.

On a node every module, every name and every constant costs heap, used or not; the sources are written for readers. So
before mpy-cross compiles them, six things happen to their syntax trees, none of which changes what the code does:

1. Docstrings, annotations and CPython's side of protocol/compat.py go; without viper, the decorators too.
2. All modules become one: `frame.u16` is the name `frame_u16` of the bundle.
3. Integer constants are put in where they are used.
4. What the node never mentions goes: the gateway's half of a format, a window for tests.
5. Small functions, and methods with one call, are put in where they are called (inline.py): a function costs a node
   more than a hundred bytes beside its code.
6. Our own names become words that MicroPython's ROM holds anyway; attributes, globals and arguments share them.
"""

import ast
import io
import itertools
import keyword
import string
from collections.abc import Iterator
from pathlib import Path

import firmware
import protocol
from tools.flash.inline import inline_calls

ENTRIES = {
    "main": {"run"},
    "start": {"prepare"},
    "link": {"Link", "start_node"},
    "sensor_replay": {"Replay", "read"},
    "sensor_simulated": {"Simulated", "read"},
}
"""The bundles, each named for the firmware module that it is built around, and the names used from outside.

They import each other inside functions only: main brings in start, which is forgotten again, and link, which stays.
"""
_OUTSIDE = set().union(*ENTRIES.values())
_VIPER_NAMES = {"micropython", "ptr8", "ptr16", "ptr32", "const"}
"""Names that the compiler knows by their spelling."""
_DEFINITIONS = ast.FunctionDef | ast.ClassDef | ast.Assign
_DEVICE_TEST = "sys.implementation.name == 'micropython'"


def bundle(name: str, viper: bool = True) -> str:
    """The source of one of the bundles.

    Args:
        name: a key of ENTRIES.
        viper: False for boards whose MicroPython has no viper emitter.
    """
    trees = {module: _bare(ast.parse(path.read_text()), viper) for module, path in _sources().items()}
    names = _Names(trees)
    body: list[ast.stmt] = []
    for module in _in_order(f"firmware.{name}", trees):
        body += _Merge(module, trees).body()
    body = _without_unused(_put_constants_in(_unique_imports(body)))
    body = _without_unused(inline_calls(body))
    return ast.unparse(ast.fix_missing_locations(_Rename(body, names).module)) + "\n"


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
    tree.body = [s for s in body if not (viper and isinstance(s, _DEFINITIONS) and _names_of(s) & _VIPER_NAMES)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in node.args.args:
                argument.annotation = None
            if not viper:
                node.decorator_list = [d for d in node.decorator_list if ast.unparse(d) != "micropython.viper"]
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
                    elif statement.module in trees and alias.name not in _VIPER_NAMES:
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
        self._locals.append(_local_names(node))
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
    if name in _OUTSIDE or name in _VIPER_NAMES:
        return name
    return f"{module.split('.')[1]}_{name}"


def _top_level_names(tree: ast.Module) -> set[str]:
    names = {s.name for s in tree.body if isinstance(s, ast.FunctionDef | ast.ClassDef)}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return names


def _local_names(function: ast.FunctionDef) -> set[str]:
    names = {argument.arg for argument in function.args.args}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
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


def _without_unused(body: list[ast.stmt]) -> list[ast.stmt]:
    while True:
        mentioned = _mentioned(body) | _OUTSIDE
        kept = [statement for statement in body if _names_of(statement) & mentioned]
        dropped = len(kept) < len(body)
        for statement in kept:
            if isinstance(statement, ast.ClassDef):
                methods = [m for m in statement.body if _names_of(m) & mentioned or _is_special(m)]
                dropped |= len(methods) < len(statement.body)
                statement.body = methods or [ast.Pass()]
        body = kept
        if not dropped:
            return body


def _mentioned(body: list[ast.stmt]) -> set[str]:
    nodes = [node for statement in body for node in ast.walk(statement)]
    loaded = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return loaded | {n.attr for n in nodes if isinstance(n, ast.Attribute)}


def _names_of(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return {node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    if isinstance(statement, ast.Pass):
        return set()
    raise ValueError(f"a bundled module holds only imports, definitions and assignments, not: {ast.unparse(statement)}")


def _is_special(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or any(name.startswith("__") for name in _names_of(statement))


# 6: names that cost nothing


class _Names:
    """What all bundles agree on, for the fields of tuples cross from one to the other.

    Attributes:
        free: new names, none of which our code uses for what it is.
        fields: the fields of every namedtuple.
    """

    def __init__(self, trees: dict[str, ast.Module]) -> None:
        used = set().union(*(_mentioned(tree.body) for tree in trees.values()))
        self.free = [name for name in _free_names() if name not in used]
        self.fields = sorted(_tuple_fields(trees) - _foreign_names([]))


class _Rename(ast.NodeTransformer):
    """Renames our globals, attributes and arguments; never a name that a foreign object could have."""

    def __init__(self, body: list[ast.stmt], names: "_Names") -> None:
        self.module = ast.Module(body=body, type_ignores=[])
        nodes = list(ast.walk(self.module))
        foreign = _foreign_names(body) | _OUTSIDE
        definitions = [s for s in body if not isinstance(s, ast.Import | ast.ImportFrom)]
        own_globals = sorted({name for s in definitions for name in _names_of(s)} - _VIPER_NAMES - _OUTSIDE)
        attributes = names.fields + sorted(_own_attributes(nodes) - foreign - set(names.fields))
        self._globals = dict(zip(own_globals, names.free, strict=False))
        self._attributes = dict(zip(attributes, names.free, strict=False))
        self._keywords = {k.arg for n in nodes if isinstance(n, ast.Call) for k in n.keywords if k.arg}
        self._arguments: dict[str, str] = {}
        self.visit(self.module)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._globals.get(node.name, node.name)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                self._visit_function(statement)
                statement.name = self._attributes.get(statement.name, statement.name)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._visit_function(node)
        node.name = self._globals.get(node.name, node.name)
        return node

    def _visit_function(self, node: ast.FunctionDef) -> None:
        mentioned = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        taken = mentioned | {self._globals[name] for name in mentioned & self._globals.keys()}
        names = (name for name in _free_names() if name not in taken)
        outer = self._arguments
        self._arguments = outer | dict(zip(sorted(_local_names(node) - self._keywords), names, strict=False))
        for argument in node.args.args:
            argument.arg = self._arguments.get(argument.arg, argument.arg)
        self.generic_visit(node)
        self._arguments = outer

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        if node.name:
            node.name = self._arguments.get(node.name, node.name)
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node.func) == "namedtuple":
            for field in ast.walk(node.args[1]):
                if isinstance(field, ast.Constant) and isinstance(field.value, str):
                    field.value = self._attributes.get(field.value, field.value)
        self.generic_visit(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._arguments.get(node.id) or self._globals.get(node.id, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = self._attributes.get(node.attr, node.attr)
        self.generic_visit(node)
        return node


def _tuple_fields(trees: dict[str, ast.Module]) -> set[str]:
    """The fields of every namedtuple."""
    calls = [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.Call)]
    tuples = [call for call in calls if ast.unparse(call.func) == "namedtuple"]
    return {str(n.value) for call in tuples for n in ast.walk(call.args[1]) if isinstance(n, ast.Constant)}


def _own_attributes(nodes: list[ast.AST]) -> set[str]:
    assigned = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    classes = [n for n in nodes if isinstance(n, ast.ClassDef)]
    methods = {m.name for c in classes for m in c.body if isinstance(m, ast.FunctionDef)}
    return {name for name in assigned | methods if not name.startswith("__")}


def _foreign_names(body: list[ast.stmt]) -> set[str]:
    """Every attribute that a built-in or imported object has, on CPython and, where it differs, MicroPython."""
    import array
    import select
    import socket

    objects: list[object] = [int, str, bytes, bytearray, list, dict, tuple, memoryview, set, Exception, OSError]
    objects += [array.array, socket.socket, select.poll(), io.BufferedReader, io.TextIOWrapper]
    for statement in body:
        if isinstance(statement, ast.Import):
            objects += [__import__(alias.name) for alias in statement.names if alias.name != "micropython"]
    names = {"readinto", "write", "mem_alloc", "mem_free", "ticks_ms", "viper", "name", "_machine"}
    return names.union(*(dir(each) for each in objects))


_ROM_WORDS = """
add hex oct ord pow sep argv copy dump find hash join keys load next pack path poll repr seed sort stat time chdir
clear clock count dumps index items loads lower mkdir round sleep split stdin strip super upper append choice decode
encode extend format getcwd getenv insert locals lstrip mktime random remove rename rindex rsplit rstrip stderr stdout
system umount unlink unpack update values collect compile complex discard fromhex getattr globals isalpha isdigit
islower isspace isupper listdir modules popitem randint replace reverse setattr statvfs uniform urandom version
callable endswith exc_info execfile fromkeys ilistdir issubset platform property reversed schedule unsetenv byteorder
frozenset heap_lock isenabled localtime pack_into partition randrange threshold ticks_cpu difference executable
isdisjoint issubclass issuperset rpartition setdefault splitlines startswith classmethod heap_unlock intersection
staticmethod
""".split()
"""Words of MicroPython's core: they lie in every board's ROM already, so as names they cost no heap at all."""


def _free_names() -> Iterator[str]:
    yield from _ROM_WORDS
    pairs = ("".join(letters) for letters in itertools.product(string.ascii_letters, repeat=2))
    yield from (name for name in pairs if not keyword.iskeyword(name))
