"""The amqtt broker as a program of its own: `python amqtt_broker.py PORT` serves MQTT on 127.0.0.1:PORT.

A process of its own, because amqtt is pure Python and would hold the gateway's interpreter lock while it routes.
It keeps nothing: a SIGTERM simply ends it. It imports nothing of ours, so that it runs by its path alone.
"""

import asyncio
import logging
import sys

import amqtt
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig


def config(port: int) -> BrokerConfig:
    """A listener on the loopback, anonymous clients, no persistence, no $SYS topics."""
    return BrokerConfig(
        listeners={"default": ListenerConfig(bind=f"127.0.0.1:{port}")},
        plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    )


async def serve(port: int) -> None:
    """Serve until the process ends; the line on standard error says that the port is ours.

    Raises:
        amqtt.errors.BrokerError: the port cannot be bound.
    """
    broker = Broker(config(port))
    await broker.start()
    print(f"amqtt version {amqtt.__version__} running", file=sys.stderr, flush=True)  # noqa: T201 - mosquitto's words
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(int(sys.argv[1])))
