"""TLS for a node's connection: a module of its own, for only nodes whose file asks for it have room to give.

A node on MicroPython shares a key with its broker (TLS-PSK, RFC 4279); to one on CPython the broker shows a
certificate. Whoever has neither gets no further than the handshake.
"""

import errno
import sys

if sys.implementation.name == "micropython":
    import tls

    def open_tls(name: str, settings: dict) -> tuple:
        """How a node of some name connects: (Tls, port, the word for it).

        Raises:
            ValueError: its file has nothing that this runtime can use; one line.
        """
        if not settings.get("psk"):
            raise ValueError("psk: is missing; on MicroPython ca is not enough, copy both from the gateway's file")
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_NONE  # nobody is asked for one: no other kind of cipher is offered
        context.set_ciphers(["TLS-PSK-WITH-AES-128-GCM-SHA256"])
        context.psk_identity, context.psk_key = name, bytes.fromhex(settings["psk"])
        return Tls(context, settings["host"]), settings["psk_port"], "psk"
else:
    import ssl

    class _Patient(ssl.SSLSocket):
        """A socket that does not wait: what is not there yet is EAGAIN, as on sockets without TLS."""

        def connect(self, address):
            """Begin to connect; the handshake goes on with the first bytes in and out."""
            code = self.connect_ex(address)
            if code:
                raise OSError(code, "not yet")

        def recv_into(self, buffer, nbytes=None, flags=0):
            """As a socket's."""
            try:
                return super().recv_into(buffer, nbytes, flags)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise BlockingIOError(errno.EAGAIN, "not yet") from None

        def send(self, data, flags=0):
            """As a socket's."""
            try:
                return super().send(data, flags)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise BlockingIOError(errno.EAGAIN, "not yet") from None

    def open_tls(_name: str, settings: dict) -> tuple:
        """As above."""
        if not settings.get("ca"):
            raise ValueError("ca: is missing; on CPython psk is not enough, copy both from the gateway's file")
        try:
            context = ssl.create_default_context(cadata=settings["ca"])
        except (OSError, ValueError):
            raise ValueError("ca: is no certificate in PEM; copy it from the gateway's file") from None
        context.sslsocket_class = _Patient
        return Tls(context, settings["host"]), settings["port"], "certificate"


class Tls:
    """TLS on one socket after another.

    Attributes:
        waits: what was sent last did not get through: the handshake is on, or the socket full.
    """

    def __init__(self, context, host: str):
        """`host`: whose certificate it has to be."""
        self.waits = False
        self._context = context
        self._host = host
        self._socket = None
        self._begun = 0

    def secured(self, raw):
        """The socket for all that is sent and received on a fresh `raw` one, from the first byte on."""
        self.waits, self._begun = True, 0
        self._socket = self._context.wrap_socket(raw, server_hostname=self._host, do_handshake_on_connect=False)
        return self._socket

    def send_some(self, data) -> int:
        """Send the beginning of some bytes. Returns how many; 0: not yet, come again with the same and more."""
        if not self._begun:
            self._begun = len(data)
        try:  # what was begun has to be as long when it is tried again: a record is made of it already
            count = self._socket.send(memoryview(data)[: self._begun]) or 0
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            count = 0
        self.waits = not count
        if count:
            self._begun = 0
        return count
