"""Move seldom used code out of a bundle: it is loaded when it is called, and leaves the heap behind the call.

A function or method marked `@cold` or `@rare` (protocol/compat.py) becomes a module of its own that holds it as
`run_cold`, together with what it needs; calls of it become `load_cold("its name")(...)`. A cold `__init__` is named for
its class, and is called on a new, empty object. Functions and constants that both sides need are copied; `load_cold`,
machine code, and a class that both sides need or that a lasting object is made of, stay in the bundle, and the cold
module asks the bundle for them. A method that is called from outside leaves one behind that loads it.
"""

import ast
import copy
from collections import Counter

MARK = "cold"
RARE = "rare"
LOAD = "load_cold"
RUN = "run_cold"
INIT = "_init"

Statements = list[ast.stmt]


def without_marks(body: Statements) -> Statements:
    """The same code with every function where it is."""
    for node in [node for statement in body for node in ast.walk(statement)]:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [d for d in node.decorator_list if not _is_mark(d)]
    return body


def move_out(body: Statements, entries: set[str], foreign: set[str]) -> Statements:
    """The same code with every cold function at the top level.

    Calls from the code that stays become loads; among cold functions they are plain calls, so that a cold function
    that is only called by others is no module of its own, and loses its mark. Those marked `@rare` are always loaded.

    Args:
        body: of a bundle: imports, functions, classes and assignments.
        entries: names, of methods too, that are used from outside the bundle.
        foreign: names that methods of other objects could have.

    Raises:
        ValueError: a cold function's name does not tell it from others.
    """
    body = list(body)
    moved: dict[str, ast.FunctionDef] = {}
    for statement in [s for s in body if isinstance(s, ast.ClassDef)]:
        for method in _marked(statement.body):
            is_init = method.name == "__init__"
            called = statement.name if is_init else method.name
            if not is_init and (called in foreign or called in moved):
                raise ValueError(f"cold method {called}: another object's could be meant; give it a name of its own")
            if is_init:
                method.body.append(ast.Return(ast.Name(method.args.args[0].arg, ast.Load())))
            _remember(method, statement.name.split("_")[-1].lower() + INIT if is_init else called.strip("_"))
            statement.body.remove(method)
            if called in entries:
                statement.body.append(_stub(method, "__init__" if is_init else called, called))
            moved[called] = method
        statement.body = statement.body or [ast.Pass()]
    for function in _marked(body):
        called = function.name
        _remember(function, called.split("_", 1)[-1].strip("_"))
        body.remove(function)
        moved[called] = function
    named = Counter(_module_of(function) for function in moved.values())
    if (twice := [name for name, count in named.items() if count > 1]):
        raise ValueError(f"cold functions named {twice[0]}: each needs a module's name of its own")
    classes = {s.name for s in body if isinstance(s, ast.ClassDef)}
    # What an object is made of lasts as long as the object, so classes with a cold __init__ are warm.
    lasting = entries | (classes & moved.keys())
    warm = _needed([s for s in body if _names_of(s) & lasting], body)
    loads, calls = _Calls(moved, classes, loads=True), _Calls(moved, classes, loads=False)
    body = [(loads if statement in warm else calls).visit(statement) for statement in body]
    functions = [calls.visit(function) for function in moved.values()]
    for function in functions:
        if _module_of(function) not in loads.loaded | calls.loaded:
            function.decorator_list = []
    return body + functions


def _stub(method: ast.FunctionDef, name: str, called: str) -> ast.FunctionDef:
    """The same method for callers outside of the bundle: its call of itself becomes a load."""
    arguments: list[ast.expr] = [ast.Name(argument.arg, ast.Load()) for argument in method.args.args]
    call = ast.Call(ast.Attribute(arguments[0], called, ast.Load()), arguments[1:], [])
    body = ast.Expr(call) if name == "__init__" else ast.Return(call)
    return ast.FunctionDef(name, copy.deepcopy(method.args), [body], [])


def split(name: str, body: Statements, entries: set[str]) -> dict[str, Statements]:
    """The bundle and each of its cold modules, every one with just what it needs.

    Args:
        name: of the bundle.
        body: what `move_out` gave; its cold functions still carry their mark. Every name in it means one thing.
        entries: names that are used from outside the bundle.
    """
    cold = _marked(body)
    rest = [statement for statement in body if statement not in cold]
    warm = _needed([s for s in rest if _names_of(s) & entries], rest)
    parts = [_needed([function], body) for function in cold]
    # What an object is made of lasts as long as the object.
    made = [s for s in rest + cold if isinstance(s, ast.FunctionDef) and s.name.endswith(INIT)]
    lasting = [warm, *(_needed([function], body) for function in made)]
    shared = [s for s in rest if isinstance(s, ast.ClassDef) and _is_shared(s, lasting, parts)]
    warm += [s for s in _needed([*shared], rest) if s not in warm]
    modules = {name: copy.deepcopy([s for s in rest if s in warm])}
    # Machine code is loaded once: the Unix port never gives its memory back.
    machine_code = [s for s in warm if isinstance(s, ast.FunctionDef) and s.decorator_list]
    asked = {LOAD}.union(*(_names_of(s) for s in [*shared, *machine_code]))
    apart = [s for s in body if not _names_of(s) & asked]
    for function in cold:
        needed = _needed([function], apart)
        own = [s for s in apart if s in needed and s is not function]
        modules[_module_of(function)] = _cold_module(name, function, own, asked)
    return modules


def _is_shared(definition: ast.stmt, lasting: list[Statements], parts: list[Statements]) -> bool:
    return any(definition in part for part in lasting) or sum(definition in part for part in parts) > 1


def _cold_module(bundle: str, function: ast.FunctionDef, own: Statements, asked: set[str]) -> Statements:
    run = copy.deepcopy(function)
    run.name = RUN
    run.decorator_list = []
    ask = _Ask(bundle, asked)
    body = without_marks([ask.visit(copy.deepcopy(statement)) for statement in [*own, run]])
    return [ast.Import([ast.alias(bundle)]), *body] if ask.asked else body


def _marked(block: Statements) -> list[ast.FunctionDef]:
    return [s for s in block if isinstance(s, ast.FunctionDef) and any(_is_mark(d) for d in s.decorator_list)]


def _is_mark(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id in (MARK, RARE)


def _remember(function: ast.FunctionDef, module: str) -> None:
    """Write the module's name into the mark, for the function's own may change."""
    (mark,) = function.decorator_list
    assert isinstance(mark, ast.Name)
    function.decorator_list = [ast.Call(mark, [ast.Constant(module)], [])]
    function.name = f"{mark.id}_{module}"


def _module_of(function: ast.FunctionDef) -> str:
    (mark,) = function.decorator_list
    assert isinstance(mark, ast.Call) and isinstance(mark.args[0], ast.Constant)
    return str(mark.args[0].value)


def _needed(roots: Statements, rest: Statements) -> Statements:
    """The roots' definitions and all that they mention, directly or not; roots that are not in `rest` are left out."""
    definitions = [(statement, _names_of(statement)) for statement in rest]
    found: Statements = []
    waiting = list(roots)
    while waiting:
        statement = waiting.pop()
        if statement in found:
            continue
        found.append(statement)
        mentioned = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
        waiting += [s for s, names in definitions if names & mentioned and s not in found]
    return [s for s in found if s in rest]


def _names_of(statement: ast.stmt) -> set[str]:
    """What a statement of a module's top level defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


class _Calls(ast.NodeTransformer):
    """Makes calls of cold functions and methods load them, or call them as plain functions.

    Attributes:
        loaded: modules that are loaded.
    """

    def __init__(self, moved: dict[str, ast.FunctionDef], classes: set[str], loads: bool) -> None:
        self.loaded: set[str] = set()
        self._moved = moved
        self._classes = classes
        self._loads = loads

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = node.func
        if isinstance(called, ast.Name) and called.id in self._moved:
            # A class whose __init__ is cold makes an empty object, which __init__ fills and returns.
            receiver: list[ast.expr] = [ast.Call(called, [], [])] if called.id in self._classes else []
        elif isinstance(called, ast.Attribute) and called.attr in self._moved:
            receiver = [called.value]
        else:
            return node
        function = self._moved[called.id if isinstance(called, ast.Name) else called.attr]
        callee: ast.expr = ast.Name(function.name, ast.Load())
        if self._loads or function.name.startswith(RARE):
            self.loaded.add(_module_of(function))
            callee = ast.Call(ast.Name(LOAD, ast.Load()), [ast.Constant(_module_of(function))], [])
        return ast.Call(callee, [*receiver, *node.args], node.keywords)


class _Ask(ast.NodeTransformer):
    """Takes names from the bundle.

    Attributes:
        asked: whether any was.
    """

    def __init__(self, bundle: str, names: set[str]) -> None:
        self.asked = False
        self._bundle = bundle
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in self._names:
            return node
        self.asked = True
        return ast.Attribute(ast.Name(self._bundle, ast.Load()), node.id, node.ctx)
