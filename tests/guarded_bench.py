"""A site on a bench whose broker is a real mosquitto with the files of `thermesh broker config`."""

import json
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import paho.mqtt.client as paho
from broker_bench import WAIT_S_MAX, free_ports, until
from on_micropython import require_micropython

from gateway import broker, certificates, passwords
from gateway.broker import LOOPBACK, find_mosquitto
from gateway.certificates import tls_context
from gateway.passwords import Login, password_line, psk_of
from tools.cli import FINE, app
from tools.flash.build import build
from tools.mesh.mesh import Mesh, NodeKind

# Three nodes of the block in the north-west and one of that in the south-east; two that nobody else is next to.
SITE_FILE = """
name = "memory"
rows = 3
cols = 6
holes = ["n-00-01", "n-00-03", "n-01-03", "n-02-03", "n-00-04", "n-01-04", "n-02-04", "n-00-05"]
cycle_s = 1
"""
CELLS = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (1, 5), (2, 5)]
NEXT_TO_GATEWAY = {(0, 0), (1, 5)}  # the first node of each part
LEAVES = ("halo", "up", "wave", "state", "about", "health", "down/ack", "down/cmd")
# The listeners, by what has to be said to them first; ports above the first one.
ABOVE = {"plain": 0, "tls": 1, "psk": 2}
# The smallest that docs/security.md promises.
TLS_HEAP = "36K"
OBSERVER = Login("observer", "sees-all")
END = "end"


def name_of(row, col):
    return f"n-{row:02}-{col:02}"


def block_topics(row, col):
    mates = [(row ^ down, col ^ right) for down in (0, 1) for right in (0, 1)]
    return [f"tm/1/memory/b/{row // 2:02}-{col // 2:02}/{name_of(*mate)}" for mate in mates]


def member_topic(row, col):
    return block_topics(row, col)[0]


def are_neighbours(one, other):
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) == 1


# Everything that is said on the site, by nodes that exist and by one in a hole; and what has no business there.
OF_NODES = {(cell, leaf): f"tm/1/memory/n/{name_of(*cell)}/{leaf}" for cell in [*CELLS, (0, 1)] for leaf in LEAVES}
TOPICS = {"tm/1/memory/cycle", "tm/1/memory/wave", "tm/1/memory", "tm/1/memory/n/n-00-00", *OF_NODES.values()}
TOPICS |= {name for cell in [*CELLS, (0, 3)] for name in block_topics(*cell)}
TOPICS |= {"tm/1/other/cycle", "tm/1/other/n/n-00-00/halo", "tm/2/memory/cycle", "bridge/config", "cycle", "x"}
TOPICS |= {f"tm/1/memory/n/n-00-00/{leaf}" for leaf in ("down", "halo/x", "x")}


def may_publish():
    """(user, topic), from the table in docs/security.md, without any of the code that writes the files."""
    allowed = {("gateway", f"tm/1/memory/{leaf}") for leaf in ("cycle", "wave")}
    allowed |= {("gateway", topic) for (_, leaf), topic in OF_NODES.items() if leaf.startswith("down/")}
    allowed |= {("gateway", topic) for (_, leaf), topic in OF_NODES.items() if leaf in ("state", "about", "wave")}
    allowed.add(("gateway", "tm/1/memory/n/n-00-00/down"))  # MQTT 3.1.1, 4.7.1.2: '#' stands for its parent too
    own = ("halo", "up", "wave", "state", "about", "health")
    allowed |= {(name_of(*cell), OF_NODES[cell, leaf]) for cell in CELLS for leaf in own}
    return allowed | {(name_of(*cell), member_topic(*cell)) for cell in CELLS}


def may_read():
    """(user, topic), in the same way."""
    heard = ("up", "state", "about", "health")
    allowed = {("gateway", topic) for (_, leaf), topic in OF_NODES.items() if leaf in heard}
    for cell in CELLS:
        topics = {"tm/1/memory/cycle", *block_topics(*cell), OF_NODES[cell, "down/ack"], OF_NODES[cell, "down/cmd"]}
        topics |= {OF_NODES[other, leaf] for other in CELLS if are_neighbours(cell, other) for leaf in ("halo", "wave")}
        topics |= {"tm/1/memory/wave"} if cell in NEXT_TO_GATEWAY else set()
        allowed |= {(name_of(*cell), topic) for topic in topics}
    allowed.add(("n-00-00", "tm/1/memory/n/n-00-00/down"))
    return allowed


def write_site(folder, text=SITE_FILE):
    (folder / "site.toml").write_text(text)
    (folder / "gateway.toml").write_text('site = "site.toml"\nspec = "lean"\n')
    return folder / "gateway.toml"


def generate(config, port, *words):
    """What the command does, with listeners on a port and the two above it; gives the folder of mosquitto's files."""
    ports = ["--port", str(port), "--tls-port", str(port + ABOVE["tls"])]
    command = ["broker", "config", "--config", str(config), *ports, *words]
    assert FINE == app(command, standalone_mode=False)
    return config.parent / "state" / "mosquitto"


def secrets_of(config):
    return json.loads((config.parent / "state" / passwords.NAME).read_text())


@contextmanager
def running(folder, port):
    """A real mosquitto with generated files, to which one user is added who may do everything."""
    with (folder / "passwords").open("a") as file:
        file.write(password_line(OBSERVER.user, OBSERVER.password, b"twelve bytes") + "\n")
    with (folder / "acl").open("a") as file:
        file.write(f"\nuser {OBSERVER.user}\ntopic readwrite #\n")
    with (folder / "log").open("wb") as words:
        process = subprocess.Popen([find_mosquitto(), "-c", folder / "mosquitto.conf"], stderr=words)
    try:
        until(lambda: answers(port), lambda: (folder / "log").read_text())
        yield process
        assert process.poll() is None, (folder / "log").read_text()
    finally:
        process.terminate()
        process.wait(WAIT_S_MAX)


def answers(port):
    try:
        return broker.connect(LOOPBACK, port, 1.0, OBSERVER) == 0
    except OSError:
        return False


def decoded(payload):
    return payload.decode(errors="replace")


class Client:
    """A client of the broker in a thread of its own.

    Attributes:
        answer: what the broker said to its CONNECT.
        seen: (topic, payload) of what it was handed.
        subscribed, acknowledged: how many SUBACKs and PUBACKs came.
        lost: it was thrown out.
    """

    def __init__(self, port, user, password, client_id="", authority="", psk=None):
        """By TLS where there is an authority, through openssl where there is a key: (identity, hex)."""
        self.answer, self.seen, self.subscribed, self.acknowledged, self.lost = None, set(), 0, 0, False
        self.user = psk[0] if psk else user
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, reconnect_on_failure=False)
        self.paho.max_inflight_messages_set(0)
        self.paho.on_connect = lambda *given: setattr(self, "answer", given[3])
        self.paho.on_subscribe = lambda *_: setattr(self, "subscribed", self.subscribed + 1)
        self.paho.on_publish = lambda *_: setattr(self, "acknowledged", self.acknowledged + 1)
        self.paho.on_disconnect = lambda *_: setattr(self, "lost", True)
        self.paho.on_message = lambda *given: self.seen.add((given[2].topic, decoded(given[2].payload)))
        if user:
            self.paho.username_pw_set(user, password)
        if authority:
            self.paho.tls_set_context(tls_context(authority))
        self.tunnel = None
        if psk:
            with socket.create_server((LOOPBACK, 0)) as entrance:
                self.paho.connect(LOOPBACK, entrance.getsockname()[1])
                self.tunnel = psk_tunnel(entrance, port, *psk)
        else:
            self.paho.connect(LOOPBACK, port)
        self.paho.loop_start()
        until(lambda: self.answer is not None or self.lost)

    def subscribe(self, topics):
        before = self.subscribed
        self.paho.subscribe([(topic, 1) for topic in topics])
        until(lambda: self.subscribed > before)

    def publish(self, messages, retain=False):
        """Hand (topic, payload) to the broker; it acknowledges also what it drops."""
        due = self.acknowledged + len(messages)
        for topic, payload in messages:
            self.paho.publish(topic, payload, 1, retain)
        until(lambda: self.acknowledged == due)

    def wait_for(self, message):
        until(lambda: message in self.seen, lambda: f"{self.user} saw {self.seen}")

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()
        if self.tunnel:
            self.tunnel.terminate()
            self.tunnel.wait(WAIT_S_MAX)


def psk_tunnel(entrance, port, identity, key):
    """openssl, which hands on to the broker, by TLS with a key, what the next connection to the entrance says."""
    command = ["openssl", "s_client", "-quiet", "-psk_identity", identity, "-psk", key, "-tls1_2"]
    inner, _ = entrance.accept()
    with inner:
        command += ["-connect", f"{LOOPBACK}:{port}"]
        return subprocess.Popen(command, stdin=inner, stdout=inner, stderr=subprocess.DEVNULL)


class Guarded:
    """A site with its guarded broker.

    Attributes:
        port: of the first listener.
        passwords: by user name.
        authority: PEM.
        kind: of the listener for who is no observer, a key of ABOVE.
        users: who can connect there.
    """

    def __init__(self, port, config):
        self.port, self.passwords, self.kind = port, secrets_of(config), "plain"
        self.authority = certificates.load(config.parent / "state")
        self._clients = []

    @property
    def users(self):
        return [user for user in self.passwords if self.kind != "psk" or user != "gateway"]

    def client(self, user, client_id=""):
        self._clients.append(self._connected(user, client_id))
        return self._clients[-1]

    def _connected(self, user, client_id):
        if user == OBSERVER.user:
            return Client(self.port, OBSERVER.user, OBSERVER.password)
        port, password = self.port + ABOVE[self.kind], self.passwords[user]
        if self.kind == "psk":  # whatever is said once the key was right
            known = psk_of(password)
            return Client(port, "gateway", self.passwords["gateway"], client_id, psk=(user, known))
        return Client(port, user, password, client_id, self.authority if self.kind == "tls" else "")

    def close(self):
        for client in self._clients:
            client.close()
        self._clients.clear()


@contextmanager
def guarded_site(folder, rows, cols, plain):
    """A site of real nodes behind a guarded broker, their files as the gateway writes them.

    Gives its configuration, an observer, and a function that starts some of the nodes on MicroPython with a heap.
    """
    require_micropython()
    port = free_ports(len(ABOVE))
    config = write_site(folder, f'name = "memory"\nrows = {rows}\ncols = {cols}\ncycle_s = 1\n')
    access = f'broker = "127.0.0.1:{port if plain else port + ABOVE["tls"]}"\nplain = {str(plain).lower()}\n'
    config.write_text(config.read_text().replace("lean", "seed") + access)
    with ExitStack() as stack:
        stack.enter_context(running(generate(config, port), port))
        gateway_of(config, 1)
        nodes = config.parent / "state" / "nodes"
        build(nodes)
        observer = Client(port, OBSERVER.user, OBSERVER.password)
        stack.callback(observer.close)
        observer.subscribe(["#"])

        def start(site, heap):
            mesh = stack.enter_context(Mesh(site, NodeKind("micropython", heap), nodes))
            mesh.start()
            return mesh

        yield config, observer, start


def gateway_of(config, cycles, as_json=True):
    """The cycles that a gateway decides, as it prints them."""
    command = [sys.executable, "-m", "tools.cli", "gateway", "--config", str(config), "--cycles", str(cycles)]
    done = subprocess.run(command + as_json * ["--json"], capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) if as_json else line for line in done.stdout.splitlines()]


@contextmanager
def on_cpython(file):
    """One node in a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "tools.cli", "node", "run", str(file)])
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(WAIT_S_MAX)
