"""Rename what is ours to words that MicroPython's ROM holds anyway: a name of its own costs a node's heap.

Globals, attributes, arguments and modules share the words. A name that a foreign object could have stays as it is, and
so does one that the compiler knows, or whoever starts a node.
"""

import ast
import itertools
import keyword
import string
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from tools.flash.cold import LOAD, RUN
from tools.flash.names import VIPER_NAMES, foreign_names, local_names, mentioned, names_of, stored_attributes

# So many words name the files of modules, for what an import reads stays a name for ever, and so many their folders.
FILE_WORDS = 8
_FOLDER_WORDS = 12


class Names:
    """What all bundles agree on, for tuples and objects cross from one to the other.

    Attributes:
        modules: new names of the bundles' modules, by the old ones; whoever starts a node knows `main`.
        exports: new names of what one bundle takes from another, by the old ones.
        free: further new names, none of which our code uses for what it is.
        shared: the fields of every namedtuple, and the attributes of ours that more than one bundle mentions.
    """

    def __init__(
        self, trees: dict[str, ast.Module], bundles: Mapping[str, Collection[str]], exports: Collection[str]
    ) -> None:
        """`trees`: every module of ours; `bundles`: the modules of each bundle; `exports`: globals between bundles."""
        statements = [statement for tree in trees.values() for statement in tree.body]
        used = mentioned(statements)
        free = [name for name in _free_names() if name not in used]
        words = [word for word in free if word in _MODULE_WORDS[_FOLDER_WORDS:]]
        self.modules = {"main": "main"} | dict(zip(sorted(bundles.keys() - {"main"}), words, strict=False))
        free = [name for name in free if name not in self.modules.values()]
        self.exports = dict(zip(sorted(exports), free, strict=False))
        self.free = free[len(exports) :]
        counted = Counter(name for modules in bundles.values() for name in _attributes_in([trees[m] for m in modules]))
        own = _own_attributes([node for statement in statements for node in ast.walk(statement)])
        common = {name for name in own if counted[name] > 1} - foreign_names(statements)
        self.shared = sorted(common | (_tuple_fields(trees) - foreign_names([])))


def rename(
    body: list[ast.stmt],
    parts: Mapping[str, list[ast.stmt]],
    names: Names,
    outside: Collection[str],
    taken: Collection[str],
) -> tuple[dict[str, ast.Module], Mapping[str, str]]:
    """The parts of a bundle as modules, renamed in place, and what attributes of ours are called in them.

    Args:
        body: the whole bundle, to decide on the names.
        parts: statements by the name of their module.
        names: what all bundles agree on.
        outside: names that are used from outside the bundle.
        taken: paths of modules that other bundles have.
    """
    files = _file_names(parts.keys() - names.modules.keys(), taken) | names.modules
    renaming = _Renaming(body, names, outside, files)
    modules = {files[name]: ast.Module(body=part, type_ignores=[]) for name, part in parts.items()}
    renamed = {name: ast.fix_missing_locations(renaming.visit(module)) for name, module in modules.items()}
    return renamed, renaming.attributes


def _file_names(parts: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """Paths for modules: a folder's and a file's name, of few words all in all."""
    paths = map("/".join, itertools.product(_MODULE_WORDS[:_FOLDER_WORDS], _MODULE_WORDS[:FILE_WORDS]))
    return dict(zip(sorted(parts), (path for path in paths if path not in taken), strict=False))


class _Renaming(ast.NodeTransformer):
    """New names for one bundle.

    Attributes:
        attributes: by their old names.
    """

    def __init__(
        self,
        body: list[ast.stmt],
        names: Names,
        outside: Collection[str],
        files: Mapping[str, str],
    ) -> None:
        self._bundles = names.modules.keys()
        self._files = files
        nodes = [node for statement in body for node in ast.walk(statement)]
        foreign = foreign_names(body) | set(outside)
        definitions = [s for s in body if not isinstance(s, ast.Import | ast.ImportFrom)]
        own_globals = {name for s in definitions for name in names_of(s)} - VIPER_NAMES - set(outside)
        shared = [name for name in names.shared if name not in outside]
        attributes = shared + sorted(_own_attributes(nodes) - foreign - set(shared))
        own_globals -= names.exports.keys()
        self._globals = names.modules | names.exports | dict(zip(sorted(own_globals), names.free, strict=False))
        self.attributes = dict(zip(attributes, names.free, strict=False))
        self._keywords = {k.arg for n in nodes if isinstance(n, ast.Call) for k in n.keywords if k.arg}
        self._arguments: dict[str, str] = {}

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._globals.get(node.name, node.name)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef):
                self._visit_function(statement)
                statement.name = self.attributes.get(statement.name, statement.name)
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
        self._arguments = outer | dict(zip(sorted(local_names(node) - self._keywords), names, strict=False))
        for argument in node.args.args:
            argument.arg = self._arguments.get(argument.arg, argument.arg)
        self.generic_visit(node)
        self._arguments = outer

    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            alias.name = self._globals.get(alias.name, alias.name)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module in self._bundles:
            node.module = self._globals[node.module]
            for alias in node.names:
                alias.name = self._globals.get(alias.name, alias.name)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        if node.name:
            node.name = self._arguments.get(node.name, node.name)
        self.generic_visit(node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = ast.unparse(node.func)
        if called.split(".")[-1] == LOAD and isinstance(node.args[0], ast.Constant):
            node.args = [ast.Constant(word) for word in self._files[str(node.args[0].value)].split("/")]
        if called == "namedtuple":
            node.args[0] = ast.Constant("tuple")  # a name in ROM; nobody asks for the type's
            for field in ast.walk(node.args[1]):
                if isinstance(field, ast.Constant) and isinstance(field.value, str):
                    field.value = self.attributes.get(field.value, field.value)
        self.generic_visit(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._arguments.get(node.id) or self._globals.get(node.id, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        asked = isinstance(node.value, ast.Name) and node.value.id in self._bundles - self._arguments.keys()
        # A cold module asks its bundle, or it is asked for its one function.
        names = self._globals if asked or node.attr == RUN else self.attributes
        node.attr = names.get(node.attr, node.attr)
        self.generic_visit(node)
        return node


def _tuple_fields(trees: dict[str, ast.Module]) -> set[str]:
    """The fields of every namedtuple."""
    calls = [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.Call)]
    tuples = [call for call in calls if ast.unparse(call.func) == "namedtuple"]
    return {str(n.value) for call in tuples for n in ast.walk(call.args[1]) if isinstance(n, ast.Constant)}


def _attributes_in(trees: list[ast.Module]) -> set[str]:
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | _methods(nodes)


def _own_attributes(nodes: list[ast.AST]) -> set[str]:
    return {name for name in stored_attributes(nodes) | _methods(nodes) if not name.startswith("__")}


def _methods(nodes: list[ast.AST]) -> set[str]:
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    return {m.name for c in classes for m in c.body if isinstance(m, ast.FunctionDef)}


ROM_WORDS = """
add hex oct ord pow sep argv copy dump find hash join keys load next pack path poll repr seed sort stat time chdir
clear clock count dumps index items loads lower mkdir round sleep split stdin strip super upper append choice decode
encode extend format getcwd getenv insert locals lstrip mktime random remove rename rindex rsplit rstrip stderr stdout
system umount unlink unpack update values collect compile complex discard fromhex getattr globals isalpha isdigit
islower isspace isupper listdir modules popitem randint replace reverse setattr statvfs uniform urandom version
callable endswith exc_info execfile fromkeys ilistdir issubset platform property reversed schedule unsetenv byteorder
frozenset heap_lock isenabled localtime pack_into partition randrange threshold ticks_cpu difference executable
isdisjoint issubclass issuperset rpartition setdefault splitlines startswith classmethod heap_unlock intersection
staticmethod
abs all any bin dict divmod enumerate eval exec filter float hasattr id input iter list map max min object range slice
sorted str sum tuple type zip chr delattr dir help print acos asin atan atan2 ceil copysign cos degrees exp fabs floor
fmod frexp isfinite isinf isnan ldexp log modf phase pi polar radians rect sin sqrt tan trunc match search sub group
calcsize gmtime heapify heappop heappush hexlify unhexlify a2b_base64 b2a_base64 digest sha256 addressof
bytearray_at bytes_at sizeof ARRAY BFINT16 BFINT32 BFINT8 BFUINT16 BFUINT32 BFUINT8 BF_LEN BF_POS BIG_ENDIAN FLOAT32
FLOAT64 INT INT16 INT32 INT64 INT8 LITTLE_ENDIAN LONG LONGLONG NATIVE PTR SHORT UINT UINT16 UINT32 UINT64 UINT8 ULONG
ULONGLONG USHORT VOID EACCES EADDRINUSE EALREADY EBADF ECONNABORTED ECONNREFUSED EEXIST EHOSTUNREACH EINVAL EIO EISDIR
ENOBUFS ENODEV ENOENT ENOMEM EOPNOTSUPP EPERM ETIMEDOUT
ArithmeticError AssertionError AttributeError BaseException EOFError GeneratorExit ImportError IndentationError
IndexError KeyError KeyboardInterrupt LookupError NameError NotImplementedError OverflowError StopIteration SyntaxError
SystemExit TypeError ZeroDivisionError
disable enable kbd_intr maxsize mem_info opt_level print_exception qstr_info sleep_ms sleep_us stack_use ticks_us
version_info
""".split()
"""Words of MicroPython's core: they lie in every board's ROM already, so as names they cost no heap at all."""
_MODULE_WORDS = [word for word in ROM_WORDS if word not in sys.stdlib_module_names]


def _free_names() -> Iterator[str]:
    yield from (word for word in ROM_WORDS if word != "super")  # MicroPython compiles a call of that in its own way
    pairs = ("".join(letters) for letters in itertools.product(string.ascii_letters, repeat=2))
    yield from (name for name in pairs if not keyword.iskeyword(name))
