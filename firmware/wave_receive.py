"""Takes a filter set from the wave into the node's free slot, piece by piece: it never lies in memory as a whole."""

import hashlib

from protocol.compat import rare
from protocol.filter_set import SIGNATURE_SIZE


@rare
def receive(path: str, size: int):
    """A Receiver. While a set comes in, it keeps this module in a node's heap, so nothing else stands here."""
    return Receiver(path, size)


class Receiver:
    """One set while it comes in.

    Attributes:
        signature: the last 64 bytes, as far as they are there.
    """

    def __init__(self, path: str, size: int):
        """Open the file of the slot for a set of `size` bytes.

        Raises:
            OSError: the flash is full or read-only.
        """
        self._file = open(path, "wb")  # noqa: SIM115  closed by `finish`
        self._sha = hashlib.sha256()
        self._left = size - SIGNATURE_SIZE
        self.signature = b""

    def feed(self, data) -> bool:
        """Take the next bytes; True when they were the last. What the flash does not take, shows when it is read."""
        try:
            self._file.write(data)
        except OSError:
            pass
        signed = min(self._left, len(data))
        self._left -= signed
        if signed:
            self._sha.update(data[:signed])
        self.signature += bytes(data[signed:])
        return len(self.signature) >= SIGNATURE_SIZE

    def finish(self) -> bytes:
        """Close the file. Returns the digest that is signed, 32 bytes.

        Raises:
            OSError: the flash is full.
        """
        self._file.close()
        return self._sha.digest()
