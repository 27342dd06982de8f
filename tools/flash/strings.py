"""Keep strings out of a node's table of names: what MicroPython's compiler puts there stays in the heap for ever.

It interns every string of up to ten characters, even in code that is soon forgotten. Bytes it does not intern.
"""

import ast

from tools.flash.rename import ROM_WORDS

_INTERNED_MAX = 10
# They take a format or a type code as bytes just as well.
_TAKE_BYTES = ("struct.", "array")


def without_names(body: list[ast.stmt], messages: bool) -> list[ast.stmt]:
    """The same code with short strings made of bytes.

    Args:
        body: of a bundle.
        messages: False also drops what only a person would read: the messages of errors.
    """
    return [_Strings(messages).visit(statement) for statement in body]


class _Strings(ast.NodeTransformer):
    def __init__(self, messages: bool) -> None:
        self._messages = messages

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if not self._messages and isinstance(node.exc, ast.Call) and any(_is_text(a) for a in node.exc.args):
            node.exc = node.exc.func
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = ast.unparse(node.func)
        if called == "namedtuple":  # its fields are names
            return node
        if called.startswith(_TAKE_BYTES) and isinstance(node.args[0], ast.Constant):
            node.args[0] = ast.Constant(str(node.args[0].value).encode())
        self.generic_visit(node)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        text = node.value
        if not isinstance(text, str) or not 0 < len(text) <= _INTERNED_MAX or text in ROM_WORDS:
            return node
        return ast.Call(ast.Attribute(ast.Constant(text.encode()), "decode", ast.Load()), [], [])


def _is_text(argument: ast.expr) -> bool:
    return any(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in ast.walk(argument))
