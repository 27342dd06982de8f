"""Put a function's statements in place of its only call (inline.py)."""

import ast
import copy
import itertools
from collections.abc import Collection

from tools.flash.callee import Callee, Substitute
from tools.flash.names import local_names


def splice(body: list[ast.stmt], callee: Callee) -> None:
    """Replace the calls of a function that make up a statement, or that an `if` tests; changes the functions in place.

    Args:
        body: of a module.
        callee: nothing but one call mentions it; the call may stand in code that is copied meanwhile.
    """
    for node in [node for statement in body for node in ast.walk(statement)]:
        if isinstance(node, ast.FunctionDef) and callee.is_named_in(node) and callee.may_go_into(node):
            node.body = _replaced(node, node.body, callee)


def _replaced(outer: ast.FunctionDef, block: list[ast.stmt], callee: Callee) -> list[ast.stmt]:
    """The block with the callee's statements instead of its calls."""
    result: list[ast.stmt] = []
    for statement in block:
        for field in ("body", "orelse"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list) and inner and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                setattr(statement, field, _replaced(outer, inner, callee))
        result += _in_place(outer, statement, callee) or [statement]
    return result


def _in_place(outer: ast.FunctionDef, statement: ast.stmt, callee: Callee) -> list[ast.stmt] | None:
    """What stands for the statement when the callee is put in; None where it is no such call."""
    call = _call_of(statement)
    arguments = callee.arguments_of(call) if call else None
    if arguments is None:
        return None
    inner = _with_other_names(callee.definition, outer)
    block = _bind(inner, list(arguments.values()))
    if isinstance(statement, ast.Return):
        return block if _leaves(block) else [*block, ast.Return(None)]
    if isinstance(statement, ast.Expr):
        return _without_returns(block, None)
    target = _free_name(callee.name, _names_in(outer) | _names_in(inner))
    if isinstance(statement, ast.Assign):
        target = ast.unparse(statement.targets[0])
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
    return opening + [Substitute(values).visit(statement) for statement in function.body]


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
            elif not isinstance(value, ast.Name | ast.Constant):
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
    """A copy whose parameters and local names occur in neither of the two."""
    inner = copy.deepcopy(function)
    taken = _names_in(outer) | _names_in(inner)
    other = {name: _free_name(name, taken) for name in sorted(local_names(inner))}
    renamed: ast.FunctionDef = _Rename(other).visit(inner)
    return renamed


def _names_in(function: ast.FunctionDef) -> set[str]:
    return {n.id for n in ast.walk(function) if isinstance(n, ast.Name)} | local_names(function)


def _free_name(name: str, taken: Collection[str]) -> str:
    return next(free for i in itertools.count() if (free := f"{name}_{i}") not in taken)


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
