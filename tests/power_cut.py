"""Cuts a node's power at every write to its flash: for MicroPython, with a real littlefs on a block device in RAM.

The power goes at the k-th program or erase. Mode "stop": that one and all behind it do not happen. "tear": its first
bytes are changed, the others not. "garbage": the others are anything. Then the node starts on what is left.
"""

import gc
import os

import vfs
from wave_story import Story, check

from protocol import ed25519
from protocol.compat import micropython, ptr8

MOUNT = "/ram"
PATH = MOUNT + "/f"
MODES = ("stop", "tear", "garbage")
# What a block device is asked for (MicroPython: vfs.AbstractBlockDev).
_COUNT, _SIZE, _ERASE = 4, 5, 6
# A run of a story never writes so often.
CUTS_MAX = 2_000


class PowerCut(Exception):
    """Nothing that a node knows how to handle."""


class Flash:
    """A block device in RAM. Nothing here allocates, for the collector too closes files.

    Attributes:
        data: its content.
        changes: programs and erases so far.
        cut: the number of the one at which the power goes, -1 never.
        dead: the power is gone.
    """

    def __init__(self, data, block_size):
        self.data, self.block_size = bytearray(data), block_size
        self.changes, self.cut, self.mode, self.dead = 0, -1, "stop", False
        self._blank = b"\xff" * block_size
        self._garbage = bytes([(at * at * 37 + at * 11 + 5) & 255 for at in range(block_size)])

    def readblocks(self, block, buffer, offset=0):
        _copy(buffer, 0, self.data, block * self.block_size + offset, len(buffer))

    def writeblocks(self, block, buffer, offset=0):
        self._change(block * self.block_size + offset, buffer, len(buffer))

    def ioctl(self, order, block):
        if order == _ERASE:
            self._change(block * self.block_size, self._blank, self.block_size)
        if order == _COUNT:
            return len(self.data) // self.block_size
        return self.block_size if order == _SIZE else 0

    def _change(self, at, new, size):
        if self.dead:
            raise PowerCut
        if self.changes != self.cut:
            self.changes += 1
            _copy(self.data, at, new, 0, size)
            return
        self.dead = True
        if self.mode != "stop":
            part = self.cut * 37 % size
            _copy(self.data, at, new, 0, part)
            if self.mode == "garbage":
                _copy(self.data, at + part, self._garbage, 0, size - part)
        raise PowerCut


@micropython.viper
def _copy(to, to_at: int, source, source_at: int, size: int):
    into, out_of = ptr8(to), ptr8(source)
    at = 0
    while at < size:
        into[to_at + at] = out_of[source_at + at]
        at += 1


def mount(flash):
    """A fresh littlefs on what lies in the flash; files that the one before left open are closed on their own flash."""
    if MOUNT[1:] in os.listdir("/"):
        vfs.umount(MOUNT)
    gc.collect()
    vfs.mount(vfs.VfsLfs2(flash), MOUNT)


def blank(blocks, block_size, flashed):
    """The image of a node's flash with the set that it was flashed with."""
    flash = Flash(b"\xff" * (blocks * block_size), block_size)
    vfs.VfsLfs2.mkfs(flash)
    mount(flash)
    with open(PATH, "wb") as file:
        file.write(flashed)
    return bytes(flash.data)


def images(blocks, block_size, key, sets):
    """Where a story begins: with slot 0 active and no record yet, and with slot 1 active."""
    first = blank(blocks, block_size, sets[1])
    flash = Flash(first, block_size)
    mount(flash)
    Story(PATH, key, sets).whole()
    return first, bytes(flash.data)


def cut_everywhere(image, block_size, key, sets, name, mode):
    """Play a story again and again, cut at each of its writes. Returns the number of cuts; raises what went wrong."""
    for cut in range(CUTS_MAX):
        flash = Flash(image, block_size)
        mount(flash)
        story = Story(PATH, key, sets)
        flash.changes, flash.cut, flash.mode = 0, cut, mode
        try:
            getattr(story, name)()
            return cut
        except PowerCut:
            left = Flash(flash.data, block_size)
            flash.dead, flash.cut = False, -1  # files that are open are closed on it one day, without an error
        try:
            mount(left)
            check(PATH, story.may_be, key, sets)
        except Exception as error:
            print(name, mode, "cut at", cut)
            raise error
        ed25519.verify = _taken_for_valid  # it was done for real up to the first cut; it writes nothing
    raise RuntimeError("the story never ends")


def _taken_for_valid(_key, _signature, _message):
    yield True
