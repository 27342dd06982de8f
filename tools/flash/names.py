"""Which names a piece of a bundle defines, mentions and must leave alone."""

import array
import ast
import hashlib
import io
import select
import socket
import sys
from collections.abc import Iterable

VIPER_NAMES = {"micropython", "ptr8", "ptr16", "ptr32", "const", "cold", "rare"}
"""Names that the compiler knows by their spelling."""


def names_of(statement: ast.stmt) -> set[str]:
    """What a statement of a module's or a class's top level defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return {node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    if isinstance(statement, ast.Pass):
        return set()
    raise ValueError(f"a bundled module holds only imports, definitions and assignments, not: {ast.unparse(statement)}")


def local_names(function: ast.FunctionDef) -> set[str]:
    """The names that are bound inside a function: its arguments and all that it assigns or imports."""
    names = {argument.arg for argument in function.args.args}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
    return names


def mentioned(body: list[ast.stmt]) -> set[str]:
    """The names that are read, and those of all attributes."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    loaded = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return loaded | {n.attr for n in nodes if isinstance(n, ast.Attribute)}


def stored_attributes(nodes: Iterable[ast.AST]) -> set[str]:
    """The attributes that are assigned."""
    return {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}


def foreign_names(body: list[ast.stmt]) -> set[str]:
    """Every attribute that a built-in or imported object has, on CPython and, where it differs, MicroPython."""
    objects: list[object] = [int, str, bytes, bytearray, list, dict, tuple, memoryview, set, Exception, OSError]
    objects += [array.array, socket.socket, select.poll(), io.BufferedReader, io.TextIOWrapper, hashlib.sha256()]
    for statement in body:
        if isinstance(statement, ast.Import):
            objects += [__import__(a.name) for a in statement.names if a.name in sys.stdlib_module_names]
    names = {"readinto", "write", "mem_alloc", "mem_free", "ticks_ms", "viper", "name", "_machine"}
    names |= {"verify_mode", "psk_identity", "psk_key"}
    return names.union(*(dir(each) for each in objects))
