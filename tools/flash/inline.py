"""Put functions in where they are called: what a reader wants small, a node wants few.

Two kinds of calls are replaced, both only where the result is plainly the same:

- A call of a function or method that is one `return` of an expression, wherever it stands. Each argument must be a
  name, a constant or an attribute, or be used once at most; so nothing is computed twice or in another order.
- A call that makes up a statement (`f(x)`, `y = f(x)`, `return f(x)`, `if f(x):`) is replaced by the statements of the
  function, if nothing else mentions it. Its own names are made different from those around them, and each `return`
  becomes what the call's place asks for; a function with a `return` inside a loop or a `try` stays a function.
"""

import ast
import copy
import itertools
from typing import NamedTuple

_PASSES_MAX = 12


class _Callee(NamedTuple):
    """A function that calls may be replaced by: its definition, and whether the first parameter is the receiver."""

    definition: ast.FunctionDef
    is_method: bool


def inline_calls(body: list[ast.stmt]) -> list[ast.stmt]:
    """The same module with its small functions and its methods of one call put in; the unused ones still stand."""
    for _ in range(_PASSES_MAX):
        before = [ast.dump(statement) for statement in body]
        for name, callee in _expressions(body).items():
            body = [_Expression(name, callee).visit(statement) for statement in body]
        for name, callee in _statements(body).items():
            _put_in_statements(body, name, callee)
        if before == [ast.dump(statement) for statement in body]:
            break
    return body


def _definitions(body: list[ast.stmt]) -> dict[str, _Callee]:
    """Functions and methods by name; names that are not unique, special or decorated are left out."""
    found: dict[str, list[_Callee]] = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            found.setdefault(statement.name, []).append(_Callee(statement, False))
        elif isinstance(statement, ast.ClassDef):
            for method in statement.body:
                if isinstance(method, ast.FunctionDef):
                    found.setdefault(method.name, []).append(_Callee(method, True))
    return {
        name: callees[0]
        for name, callees in found.items()
        if len(callees) == 1 and not name.startswith("__") and not callees[0].definition.decorator_list
    }


# Functions that are one expression


def _expressions(body: list[ast.stmt]) -> dict[str, _Callee]:
    """Callees of the first kind, each with no name inside that only its own scope knows."""
    return {name: callee for name, callee in _definitions(body).items() if _is_expression(callee.definition)}


def _is_expression(function: ast.FunctionDef) -> bool:
    if len(function.body) != 1 or not isinstance(function.body[0], ast.Return) or function.body[0].value is None:
        return False
    scopes = (ast.GeneratorExp, ast.ListComp, ast.Lambda, ast.DictComp, ast.SetComp)
    inside = list(ast.walk(function.body[0]))
    recursive = any(isinstance(n, ast.Name | ast.Attribute) and _last_name(n) == function.name for n in inside)
    return not recursive and not any(isinstance(n, scopes) for n in inside) and not function.args.defaults


def _last_name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


class _Expression(ast.NodeTransformer):
    """Replaces the calls of one function."""

    def __init__(self, name: str, callee: _Callee) -> None:
        self._name = name
        self._callee = callee

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if any(ast.unparse(d).startswith("micropython.") for d in node.decorator_list):
            return node  # machine code counts its own words
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        arguments = _arguments_of(node, self._name, self._callee)
        if arguments is None:
            return node
        returned = self._callee.definition.body[0]
        assert isinstance(returned, ast.Return) and returned.value is not None
        uses = [n.id for n in ast.walk(returned.value) if isinstance(n, ast.Name)]
        if all(_is_plain(value) or uses.count(name) <= 1 for name, value in arguments.items()):
            put_in: ast.AST = _Substitute(arguments).visit(copy.deepcopy(returned.value))
            return put_in
        return node


def _arguments_of(node: ast.Call, name: str, callee: _Callee) -> dict[str, ast.expr] | None:
    """Parameter -> argument where the call is one of the callee; None where it is not, or not plainly."""
    parameters = [a.arg for a in callee.definition.args.args]
    if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
        return None
    if callee.is_method:
        if not isinstance(node.func, ast.Attribute) or node.func.attr != name or not _is_plain(node.func.value):
            return None
        values = [node.func.value, *node.args]
    elif isinstance(node.func, ast.Name) and node.func.id == name:
        values = list(node.args)
    else:
        return None
    return dict(zip(parameters, values, strict=True)) if len(parameters) == len(values) else None


def _is_plain(node: ast.expr) -> bool:
    """Whether computing it again costs little and changes nothing."""
    if isinstance(node, ast.Attribute):
        return _is_plain(node.value)
    return isinstance(node, ast.Name | ast.Constant)


class _Substitute(ast.NodeTransformer):
    def __init__(self, values: dict[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return copy.deepcopy(self._values[node.id]) if node.id in self._values else node


# Functions that are statements


def _statements(body: list[ast.stmt]) -> dict[str, _Callee]:
    """Callees of the second kind."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    mentions = [n.attr for n in nodes if isinstance(n, ast.Attribute)]
    mentions += [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return {
        name: callee
        for name, callee in _definitions(body).items()
        if mentions.count(name) == 1 and not callee.definition.args.defaults
    }


def _put_in_statements(body: list[ast.stmt], name: str, callee: _Callee) -> None:
    for node in [node for statement in body for node in ast.walk(statement)]:
        if isinstance(node, ast.FunctionDef) and node is not callee.definition:
            node.body = _replaced(node, node.body, name, callee)


def _replaced(outer: ast.FunctionDef, block: list[ast.stmt], name: str, callee: _Callee) -> list[ast.stmt]:
    """The block with the callee's statements instead of its calls."""
    result: list[ast.stmt] = []
    for statement in block:
        for field in ("body", "orelse"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list) and inner and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                setattr(statement, field, _replaced(outer, inner, name, callee))
        result += _in_place(outer, statement, name, callee) or [statement]
    return result


def _in_place(outer: ast.FunctionDef, statement: ast.stmt, name: str, callee: _Callee) -> list[ast.stmt] | None:
    """What stands for the statement when the callee is put in; None where it is no such call."""
    call = _call_of(statement)
    arguments = _arguments_of(call, name, callee) if call else None
    if arguments is None:
        return None
    inner = _with_other_names(callee.definition, outer)
    block = _bind(inner, list(arguments.values()))
    if isinstance(statement, ast.Return):
        return block if _leaves(block) else [*block, ast.Return(None)]
    if isinstance(statement, ast.Expr):
        return _without_returns(block, None)
    target = f"{name}_result" if isinstance(statement, ast.If) else ast.unparse(statement.targets[0])  # type: ignore[attr-defined]
    opening = _without_returns(block, target)
    if opening is None or not isinstance(statement, ast.If):
        return opening
    result = ast.Name(target, ast.Load())
    statement.test = ast.UnaryOp(ast.Not(), result) if isinstance(statement.test, ast.UnaryOp) else result
    return [*opening, statement]


def _call_of(statement: ast.stmt) -> ast.Call | None:
    """The call that makes up a statement, or that an `if` tests."""
    value: ast.expr | None = None
    if isinstance(statement, ast.Expr | ast.Return) or _is_plain_assignment(statement):
        value = statement.value  # type: ignore[attr-defined]
    elif isinstance(statement, ast.If):
        is_not = isinstance(statement.test, ast.UnaryOp) and isinstance(statement.test.op, ast.Not)
        value = statement.test.operand if is_not else statement.test  # type: ignore[attr-defined]
    return value if isinstance(value, ast.Call) else None


def _is_plain_assignment(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and [type(target) for target in statement.targets] == [ast.Name]


def _bind(function: ast.FunctionDef, arguments: list[ast.expr]) -> list[ast.stmt]:
    """The function's statements with its parameters bound: names and constants put in, the rest assigned first."""
    assigned = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    opening: list[ast.stmt] = []
    values: dict[str, ast.expr] = {}
    for parameter, value in zip([a.arg for a in function.args.args], arguments, strict=True):
        if isinstance(value, ast.Name | ast.Constant) and parameter not in assigned:
            values[parameter] = value
        else:
            opening.append(_assign(parameter, value))
    return opening + [_Substitute(values).visit(statement) for statement in function.body]


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value, lineno=0)


def _without_returns(block: list[ast.stmt], target: str | None) -> list[ast.stmt] | None:
    """The block with each `return` made an assignment to `target` (None: dropped), or None where that cannot be."""
    result: list[ast.stmt] = []
    for place, statement in enumerate(block):
        rest = block[place + 1 :]
        if not any(isinstance(n, ast.Return) for n in ast.walk(statement)):
            result.append(statement)
            continue
        if isinstance(statement, ast.Return):
            value = statement.value or ast.Constant(None)
            if target is not None:
                result.append(_assign(target, value))
            elif not _is_plain(value):
                result.append(ast.Expr(value))
            return result or [ast.Pass()]
        if not isinstance(statement, ast.If):
            return None
        if _leaves(statement.body):
            parts = _without_returns(statement.body, target), _without_returns(statement.orelse + rest, target)
        elif statement.orelse and _leaves(statement.orelse):
            parts = _without_returns(statement.body + rest, target), _without_returns(statement.orelse, target)
        else:
            return None
        if parts[0] is None or parts[1] is None:
            return None
        return [*result, ast.If(statement.test, parts[0], [s for s in parts[1] if not isinstance(s, ast.Pass)])]
    return result + ([_assign(target, ast.Constant(None))] if target is not None and not _leaves(block) else [])


def _leaves(block: list[ast.stmt]) -> bool:
    """Whether a block always ends with `return` or `raise`."""
    if not block:
        return False
    last = block[-1]
    if isinstance(last, ast.If):
        return _leaves(last.body) and _leaves(last.orelse)
    return isinstance(last, ast.Return | ast.Raise)


def _with_other_names(function: ast.FunctionDef, outer: ast.FunctionDef) -> ast.FunctionDef:
    """A copy whose parameters and local names do not occur in `outer`."""
    taken = {n.id for n in ast.walk(outer) if isinstance(n, ast.Name)} | {a.arg for a in outer.args.args}
    inner = copy.deepcopy(function)
    names = {a.arg for a in inner.args.args}
    names |= {n.id for n in ast.walk(inner) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {n.name for n in ast.walk(inner) if isinstance(n, ast.ExceptHandler) and n.name}
    other = {}
    for name in sorted(names):
        other[name] = next(f"{name}_{i}" for i in itertools.count() if f"{name}_{i}" not in taken)
    renamed: ast.FunctionDef = _Rename(other).visit(inner)
    return renamed


class _Rename(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._names.get(node.arg, node.arg)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        if node.name:
            node.name = self._names.get(node.name, node.name)
        self.generic_visit(node)
        return node
