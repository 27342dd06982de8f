"""The amqtt broker as a program of its own: `python amqtt_broker.py PORT [FILE]` serves MQTT on 127.0.0.1:PORT.

FILE is JSON, the password by user name of all that are let in; without it everybody is.

A process of its own, because amqtt is pure Python and would hold the gateway's interpreter lock while it routes.
It keeps nothing: a SIGTERM simply ends it. It imports nothing of ours, so that it runs by its path alone.
"""

import asyncio
import hmac
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import amqtt
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session


class PasswordPlugin(BaseAuthPlugin):  # type: ignore[misc]
    """Lets in who says a user's name and password; the broker asks for it by name."""

    @dataclass
    class Config:
        """`file`: path of the JSON file."""

        file: str

    def __init__(self, context: object) -> None:
        """Read the file."""
        super().__init__(context)
        self._passwords = json.loads(Path(self.context.config.file).read_bytes())

    async def authenticate(self, *, session: Session) -> bool:
        """Whether a client may come in."""
        known = self._passwords.get(session.username or "")
        return known is not None and hmac.compare_digest(known.encode(), (session.password or "").encode())


def config(port: int, file: str | None) -> BrokerConfig:
    """A listener on the loopback, no persistence, no $SYS topics; passwords from a file, if any."""
    anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    return BrokerConfig(
        listeners={"default": ListenerConfig(bind=f"127.0.0.1:{port}")},
        plugins={"__main__.PasswordPlugin": {"file": file}} if file else anonymous,
    )


async def serve(port: int, file: str | None) -> None:
    """Serve until the process ends; the line on standard error says that the port is ours.

    Raises:
        amqtt.errors.BrokerError: the port cannot be bound.
    """
    broker = Broker(config(port, file))
    await broker.start()
    print(f"amqtt version {amqtt.__version__} running", file=sys.stderr, flush=True)  # noqa: T201 - mosquitto's words
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
