"""A site that runs, with a guarded broker: a node comes, gets another device, and goes, while cycles go on, exact."""

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from broker_bench import free_ports, needs_mosquitto, until
from guarded_bench import ABOVE, OBSERVER, Client, generate, on_cpython, running, secrets_of, write_site

from gateway import broker
from gateway.broker import LOOPBACK
from gateway.passwords import Login, password_line, psk_of
from gateway.site import load_site
from gateway.store import Store
from protocol.grid import parse_node_name
from tools.cli import FINE, app

pytestmark = [needs_mosquitto, pytest.mark.slow]

SITE_FILE = 'name = "memory"\nrows = 2\ncols = 3\nholes = ["n-01-02"]  # later\ncycle_s = 1\n'
CYCLES_S_MAX = 60.0


class LiveSite:
    """The processes of a site, each to be restarted on its own."""

    def __init__(self, config, port):
        self.config, self.port = config, port
        self.state = config.parent / "state"
        self._nodes = {}
        self._broker = ExitStack()
        self.start_broker()

    def start_broker(self):
        self._mosquitto = self._broker.enter_context(running(self.state / "mosquitto", self.port))

    def node(self, word, name):
        """The command, and with the broker what it says is to do."""
        assert FINE == app(["node", word, name, "--config", str(self.config)], standalone_mode=False)
        if word == "replace":
            self._broker.close()
            self.start_broker()
        else:
            self.reload()

    def reload(self):
        """As people do; but the bench's observer, who is none of the site's users, stays."""
        folder = self.state / "mosquitto"
        with (folder / "passwords").open("a") as file:
            file.write(password_line(OBSERVER.user, OBSERVER.password, b"twelve bytes") + "\n")
        with (folder / "acl").open("a") as file:
            file.write(f"\nuser {OBSERVER.user}\ntopic readwrite #\n")
        self._mosquitto.send_signal(subprocess.signal.SIGHUP)

    def start(self, *names):
        for name in names:
            file = self.state / "nodes" / f"{name}.json"
            until(partial(self._is_written, name, file), file)
            self._nodes[name] = ExitStack()
            self._nodes[name].enter_context(on_cpython(file))

    def _is_written(self, name, file):
        """Whether the gateway wrote the node's file for the site as it is now."""
        text = file.read_text() if file.exists() else ""
        mask = load_site(self.config.parent / "site.toml").neighbour_masks[parse_node_name(name)]
        return text.endswith("}") and secrets_of(self.config)[name] in text and json.loads(text)["neighbours"] == mask

    def stop(self, *names):
        for name in names:
            self._nodes.pop(name).close()

    def close(self):
        self.stop(*self._nodes)
        self._broker.close()

    def until_whole(self, nodes):
        """Cycles go on until all nodes take part in one, every feature exact."""
        until(lambda: self._is_whole(nodes), f"{nodes} nodes take part", CYCLES_S_MAX)

    def _is_whole(self, nodes):
        with Store(self.state, load_site(self.config.parent / "site.toml")) as store:
            (latest,) = [*store.latest_cycles(1)] or [None]
        exact = latest and latest.outcome.exact
        return latest and nodes == latest.outcome.record.pooled.sum() and exact.compared == exact.equal > 0

    def lets_in(self, name, password):
        return 0 == broker.connect(LOOPBACK, self.port, 5.0, Login(name, password))


@contextmanager
def gateway(config):
    with (config.parent / "log").open("wb") as words:
        command = [sys.executable, "-m", "tools.cli", "gateway", "--config", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words)
        try:
            yield
            assert process.poll() is None, (config.parent / "log").read_text()
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def site(tmp_path):
    port = free_ports(len(ABOVE))
    config = write_site(tmp_path, SITE_FILE)
    config.write_text(config.read_text() + f'broker = "127.0.0.1:{port}"\n')
    with ExitStack() as stack:
        generate(config, port)
        found = LiveSite(config, port)
        stack.callback(found.close)
        stack.enter_context(gateway(config))
        found.start("n-00-00", "n-00-01", "n-00-02", "n-01-00", "n-01-01")
        found.until_whole(5)
        yield found


def left_at_the_broker(site, name):
    """What a new subscriber is handed of a node."""
    observer = Client(site.port, *OBSERVER)
    observer.subscribe([f"tm/1/memory/n/{name}/#", "end"])
    observer.publish([("end", "")])
    observer.wait_for(("end", ""))
    observer.close()
    return {topic for topic, payload in observer.seen if topic != "end" and payload}


def test_a_node_comes_gets_another_device_and_goes_while_the_site_runs(site):
    site.node("add", "n-01-02")
    neighbours = "n-00-01", "n-00-02", "n-01-01"
    site.stop(*neighbours)
    site.start(*neighbours, "n-01-02")
    site.until_whole(6)
    assert {"tm/1/memory/n/n-01-02/about", "tm/1/memory/n/n-01-02/state"} <= left_at_the_broker(site, "n-01-02")

    stolen = secrets_of(site.config)["n-00-00"]
    site.stop("n-00-00")
    thieves = [
        Client(site.port, "n-00-00", stolen),
        Client(site.port + ABOVE["psk"], "n-00-00", "", psk=("n-00-00", psk_of(stolen))),
    ]
    site.node("replace", "n-00-00")
    for thief in thieves:
        until(lambda thief=thief: thief.lost, "who is in with the old password, or the old key, is thrown out")
        thief.close()
    assert not site.lets_in("n-00-00", stolen)
    site.start("n-00-00")
    site.until_whole(6)

    gone = secrets_of(site.config)["n-01-02"]
    site.node("remove", "n-01-02")
    until(lambda: not site.lets_in("n-01-02", gone), "its password opens nothing")
    until(lambda: not left_at_the_broker(site, "n-01-02"), "nothing of it is left at the broker")
    site.until_whole(5)
    assert "n-01-02" not in secrets_of(site.config)
    assert SITE_FILE == (site.config.parent / "site.toml").read_text()
