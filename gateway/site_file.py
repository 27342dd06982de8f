"""A node more or less in a site's file: holes and entries are edited in people's own text, which stays else as it is.

The text is edited where its lists stand, then read as a whole; where it does not say exactly what it should, it stays.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gateway.files import write_whole
from gateway.site import Cell, Site, SiteError, load_site, parse_site
from protocol.grid import node_name, parse_node_name

_TOKEN = re.compile(r"""#[^\n]*|"[^"\n]*"|'[^'\n]*'|,|\]""")


def cell_named(site: Site, name: str) -> Cell:
    """The cell of a name, which lies in the site's grid.

    Raises:
        SiteError: it is no name, or lies outside.
    """
    try:
        cell: Cell = parse_node_name(name)
    except ValueError as error:
        raise SiteError(f"node: {str(error)[:120]}") from None
    if cell[0] >= site.rows or cell[1] >= site.cols:
        last, remedy = node_name(site.rows - 1, site.cols - 1), "a larger grid is a site of its own, with its own state"
        raise SiteError(f"node: {name} lies outside, the last cell is {last}; {remedy}")
    return cell


def add_node(path: Path, name: str) -> Site:
    """Put a node where a hole was. Returns the site as it is now.

    Raises:
        SiteError: there is one already, the cell lies outside, or the file cannot be edited; it stays as it was.
    """
    site = load_site(path)
    cell = cell_named(site, name)
    if cell in site.cells:
        raise SiteError(f"node: {name} stands in {path} already; `thermesh node replace` is for a new device there")
    wanted = replace(site, cells=tuple(sorted({*site.cells, cell})))
    return _write(path, wanted, lambda text: _without(text, "holes", name))


def remove_node(path: Path, name: str) -> Site:
    """Put a hole where a node was. Returns the site as it is now.

    Raises:
        SiteError: there is none, it is the last one, or the file cannot be edited; it stays as it was.
    """
    site = load_site(path)
    cell = cell_named(site, name)
    if cell not in site.cells:
        raise SiteError(f"node: {name} is a hole in {path} already; name a node, like {node_name(*site.cells[0])}")
    try:
        wanted = replace(
            site,
            cells=tuple(other for other in site.cells if other != cell),
            entries=tuple(other for other in site.entries if other != cell),
        )
    except SiteError:
        raise SiteError(f"node: {name} is the last one; a site needs one at least") from None
    return _write(path, wanted, lambda text: _with(_without(text, "next_to_gateway", name), "holes", name))


def _write(path: Path, wanted: Site, edit: Callable[[str], str]) -> Site:
    """Replace the file, all of it or nothing."""
    try:
        text = edit(path.read_bytes().decode())
        if not _says(text, wanted):
            raise SiteError(f"{path}: its list of holes is written in a way that is left to people; edit it by hand")
        write_whole(path, text.encode())
    except OSError as error:
        raise SiteError(f"{path}: {error.strerror or error}; make file and folder writable") from None
    return wanted


def _says(text: str, wanted: Site) -> bool:
    try:
        return parse_site(text) == wanted
    except SiteError:
        return False


def _without(text: str, key: str, name: str) -> str:
    """The text without a name in a list, and without the line on which nothing else stood."""
    tokens = _tokens(text, key)
    at = next((place for place, token in enumerate(tokens) if token.group()[1:-1] == name), None)
    if at is None:
        return text
    start, end = tokens[at].span()
    commas = [token for token in tokens[at + 1 : at + 2] if token.group() == ","]
    if commas:
        end = commas[0].end()
        end += len(text[end:]) - len(text[end:].lstrip(" "))
    elif at and tokens[at - 1].group() == ",":  # the last one: what parts it from the one before goes
        return text[: tokens[at - 1].start()] + text[tokens[at - 1].end() : start].rstrip(" ") + text[end:]
    line_start, line_end = text.rfind("\n", 0, start) + 1, text.find("\n", end) + 1
    if line_end and not (text[line_start:start] + text[end:line_end]).strip():
        return text[:line_start] + text[line_end:]
    return text[:start] + text[end:]


def _with(text: str, key: str, name: str) -> str:
    """The text with one name more in a list, behind the others; with the list where there was none."""
    tokens = _tokens(text, key)
    if not tokens:
        return text + ("" if text.endswith("\n") or not text else "\n") + f'{key} = ["{name}"]\n'
    names = [token for token in tokens if token.group()[0] in "\"'"]
    if not names:
        at = tokens[-1].start()
        return text[:at] + f'"{name}"' + text[at:]
    last = names[-1]
    line_start = text.rfind("\n", 0, last.start()) + 1
    indent = text[line_start : last.start()]
    if indent.strip():  # others stand on its line
        return text[: last.end()] + f', "{name}"' + text[last.end() :]
    line_end = text.find("\n", last.end())
    line = text[last.end() : line_end].rstrip("\r")
    comma = "" if line.lstrip().startswith(",") else ","
    return f'{text[: last.end()]}{comma}{line}\n{indent}"{name}"{"" if comma else ","}{text[last.end() + len(line) :]}'


def _tokens(text: str, key: str) -> list[re.Match[str]]:
    """Names, commas and the closing bracket of a list, without comments; empty where the text has no such list."""
    opening = re.search(rf"^[ \t]*[\"']?{key}[\"']?[ \t]*=[ \t]*\[", text, re.MULTILINE)
    found: list[re.Match[str]] = []
    for token in _TOKEN.finditer(text, opening.end()) if opening else ():
        if token.group()[0] != "#":
            found.append(token)
        if token.group() == "]":
            break
    return found
