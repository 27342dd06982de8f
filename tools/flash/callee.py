"""A function that could be put in where it is called, and what has to hold for that (inline.py)."""

import ast
import copy
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from tools.flash.names import foreign_names, local_names, stored_attributes

_LEAVES_THE_FRAME = (ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal)


class Callee(NamedTuple):
    """A function that calls may be replaced by.

    Attributes:
        name: as calls name it.
        definition: the function.
        is_method: whether its first parameter is the receiver.
    """

    name: str
    definition: ast.FunctionDef
    is_method: bool

    def arguments_of(self, node: ast.Call) -> dict[str, ast.expr] | None:
        """Parameter -> argument where the call is one of this function; None where it is not, or not plainly."""
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            return None
        values = list(node.args)
        if self.is_method:
            if not isinstance(node.func, ast.Attribute) or node.func.attr != self.name or not _is_path(node.func.value):
                return None
            values.insert(0, node.func.value)
        elif not isinstance(node.func, ast.Name) or node.func.id != self.name:
            return None
        parameters = [argument.arg for argument in self.definition.args.args]
        return dict(zip(parameters, values, strict=True)) if len(parameters) == len(values) else None

    def is_named_in(self, outer: ast.FunctionDef) -> bool:
        """Whether a function mentions its name at all; most do not, which saves looking closer."""
        nodes = ast.walk(outer)
        if self.is_method:
            return any(isinstance(n, ast.Attribute) and n.attr == self.name for n in nodes)
        return any(isinstance(n, ast.Name) and n.id == self.name for n in nodes)

    def may_go_into(self, outer: ast.FunctionDef) -> bool:
        """Whether its code means the same inside `outer`: that is no machine code, and hides no name that it needs."""
        if outer is self.definition or any(ast.unparse(d).startswith("micropython.") for d in outer.decorator_list):
            return False
        own, around = local_names(self.definition), local_names(outer)
        around |= {node.arg for node in ast.walk(outer) if isinstance(node, ast.arg)}
        return not any(isinstance(n, ast.Name) and n.id in around - own for n in ast.walk(self.definition))


def callees(body: list[ast.stmt]) -> list[Callee]:
    """The functions and methods of a module that may be put in where they are called; inline.py tells which may not."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    functions = [Callee(s.name, s, False) for s in body if isinstance(s, ast.FunctionDef)]
    classes = [statement for statement in body if isinstance(statement, ast.ClassDef)]
    functions += [Callee(m.name, m, True) for c in classes for m in c.body if isinstance(m, ast.FunctionDef)]
    count = Counter(callee.name for callee in functions)
    bound = set().union(*(local_names(node) for node in nodes if isinstance(node, ast.FunctionDef)))
    elsewhere = stored_attributes(nodes) | foreign_names(body)
    return [
        callee
        for callee in functions
        if count[callee.name] == 1
        and not callee.name.startswith("__")
        and callee.name not in (elsewhere if callee.is_method else bound)
        and _may_be_put_in(callee.definition)
    ]


def _may_be_put_in(function: ast.FunctionDef) -> bool:
    arguments = function.args
    others = arguments.defaults or arguments.vararg or arguments.kwonlyargs or arguments.kwarg or arguments.posonlyargs
    inside = list(ast.walk(function))
    recursive = any(isinstance(n, ast.Name | ast.Attribute) and _last_name(n) == function.name for n in inside)
    frame = any(isinstance(n, _LEAVES_THE_FRAME) for n in inside)
    return not (others or function.decorator_list or recursive or frame)


def _last_name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def steady_attributes(body: list[ast.stmt]) -> set[str]:
    """The attributes that are assigned in `__init__` and nowhere else."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    inits = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    inside = {node for init in inits for node in ast.walk(init)}
    return stored_attributes(inside) - stored_attributes(node for node in nodes if node not in inside)


def _is_path(node: ast.expr) -> bool:
    """Whether it is a name or an attribute of one: reading it changes nothing."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_path(node.value))


class Substitute(ast.NodeTransformer):
    """Puts expressions in for names."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        """`values`: by name."""
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A copy of the value, or the name itself."""
        return copy.deepcopy(self._values[node.id]) if node.id in self._values else node
