"""Put functions in where they are called: what a reader wants small, a node wants few.

Two kinds of calls are replaced:

- A call of a function or method that is one `return` of an expression, wherever it stands. Its arguments are *plain*,
  which means that they are the same whenever they are computed: constants, names, and attributes of names that are
  assigned in `__init__` only. One of them may be anything else, if the expression needs it exactly once, in any case
  and not behind something that it could change.
- A call that makes up a statement (`f(x)`, `y = f(x)`, `return f(x)`, `if f(x):`) is replaced by the statements of the
  function, if nothing else mentions it. Its arguments are assigned first, in their order, its own names are made
  different from those around them, and each `return` becomes what the call's place asks for.

A function stays a function if it is decorated, has defaults, takes any number of arguments, is a generator, calls
itself, or returns out of a loop or a `try`; a method also if an object that is not ours, or an attribute, could have
its name. Nothing is put in where a local name would hide a global one.

It holds for code like ours: no `global`, no operators or properties of our own that change anything.
"""

import ast
import copy
from collections import Counter
from collections.abc import Collection, Iterator

from tools.flash.callee import Callee, Substitute, callees, steady_attributes
from tools.flash.splice import splice

_PASSES_MAX = 12
_SCOPES = (ast.GeneratorExp, ast.ListComp, ast.Lambda, ast.DictComp, ast.SetComp, ast.NamedExpr)


def inline_calls(
    body: list[ast.stmt], keep: Collection[str] = (), steady: Collection[str] | None = None
) -> list[ast.stmt]:
    """The same module with its small functions and its methods of one call put in; the unused ones still stand.

    Args:
        body: imports, functions, classes and assignments.
        keep: functions and methods that stay as they are.
        steady: the attributes that are assigned in `__init__` only; those of this body unless given.
    """
    steady = steady_attributes(body) if steady is None else steady
    for _ in range(_PASSES_MAX):
        before = [ast.dump(statement) for statement in body]
        for callee in callees(body):
            if callee.name not in keep and _is_expression(callee.definition):
                body = [_Expression(callee, steady).visit(statement) for statement in body]
        mentions = _mentions(body)
        for callee in callees(body):
            if callee.name not in keep and mentions[callee.name] == 1:
                splice(body, callee)
        if before == [ast.dump(statement) for statement in body]:
            break
    return body


def _is_expression(function: ast.FunctionDef) -> bool:
    """Whether it is one `return` of an expression without names that only its own scope knows."""
    if len(function.body) != 1 or not isinstance(function.body[0], ast.Return) or function.body[0].value is None:
        return False
    return not any(isinstance(node, _SCOPES) for node in ast.walk(function.body[0]))


class _Expression(ast.NodeTransformer):
    """Replaces the calls of one function."""

    def __init__(self, callee: Callee, steady: Collection[str]) -> None:
        self._callee = callee
        self._steady = steady
        (returned,) = callee.definition.body
        assert isinstance(returned, ast.Return) and returned.value is not None
        self._value = returned.value

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if self._callee.is_named_in(node) and self._callee.may_go_into(node):
            self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        arguments = self._callee.arguments_of(node)
        if arguments is None:
            return node
        others = [parameter for parameter, value in arguments.items() if not self._is_plain(value)]
        if len(others) > 1 or not all(_is_needed_first(self._value, other, arguments[other]) for other in others):
            return node
        put_in: ast.AST = Substitute(arguments).visit(copy.deepcopy(self._value))
        return put_in

    def _is_plain(self, node: ast.expr) -> bool:
        """Whether it is the same whenever it is computed."""
        if isinstance(node, ast.Attribute):
            return node.attr in self._steady and self._is_plain(node.value)
        if isinstance(node, ast.UnaryOp):
            return isinstance(node.operand, ast.Constant)
        return isinstance(node, ast.Name | ast.Constant)


def _is_needed_first(expression: ast.expr, parameter: str, value: ast.expr) -> bool:
    """Whether the expression computes the parameter once, in any case, and before all that its value could change."""
    steps = list(_steps(expression, True))
    uses = [place for place, (node, _) in enumerate(steps) if isinstance(node, ast.Name) and node.id == parameter]
    if len(uses) != 1 or not steps[uses[0]][1]:
        return False
    changes = any(isinstance(node, ast.Call) for node in ast.walk(value))
    before = [node for node, _ in steps[: uses[0]]]
    if changes:
        return all(isinstance(node, ast.Name | ast.Constant) for node in before)
    return not any(isinstance(node, ast.Call) for node in before)


def _steps(node: ast.AST, always: bool) -> Iterator[tuple[ast.AST, bool]]:
    """The parts of an expression in the order in which they are computed, and whether they are in any case."""
    parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr | ast.keyword | ast.slice)]
    if isinstance(node, ast.IfExp):
        parts = [node.test, node.body, node.orelse]
    sure = len(parts)
    if isinstance(node, ast.IfExp | ast.BoolOp):
        sure = 1
    elif isinstance(node, ast.Compare):
        sure = 2
    for place, part in enumerate(parts):
        yield from _steps(part, always and place < sure)
    yield node, always


def _mentions(body: list[ast.stmt]) -> Counter[str]:
    """How often each name is read, and each attribute mentioned."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    attributes = Counter(n.attr for n in nodes if isinstance(n, ast.Attribute))
    return attributes + Counter(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))
