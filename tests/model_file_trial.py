"""Hands a site model files that it has to refuse, then a good one, and measures; a process of its own, for its memory.

    python tests/model_file_trial.py FOLDER SPEC COUNT SEED -> one JSON object (`Trial.run`)
"""

import io
import json
import resource
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from mesh_in_memory import make_model, make_site
from model_file_mutations import mutated, parts_of, sealed
from store_bench import NOON_S, new_store

from gateway import keys
from gateway.gateway import Gateway, Timing
from gateway.model import Head, Model
from gateway.rollouts import Rollouts
from protocol import filter_set, frame, topic
from tools import cli

SITE = make_site(2, 3, {(1, 1)})
SITE_FILE = 'name = "memory"\nrows = 2\ncols = 3\nholes = ["n-01-01"]\ncycle_s = 1\n'
GATEWAY_FILE = 'site = "site.toml"\nspec = "{}"\nstate = "kept"\nbroker = "mosquitto"\n'
# Once everything is imported and every kind of work was done.
WARM_UP = 5


def telling_model(spec_name, seed):
    """A model whose every weight matters."""
    model, rng = make_model(spec_name, SITE), np.random.default_rng(seed)
    layers = [[rng.normal(size=values.shape).astype(np.float32) for values in layer] for layer in model.head.layers]
    return Model(spec_name, model.filters, Head(1, tuple(map(tuple, layers))))


def write_site(folder, spec_name):
    """A gateway's file, as `thermesh` wants it; its path."""
    (folder / "site.toml").write_text(SITE_FILE)
    (folder / "gateway.toml").write_text(GATEWAY_FILE.format(spec_name))
    return folder / "gateway.toml"


def thermesh(*words):
    """(exit code, stdout, stderr) of a command, in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["thermesh", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        return end.code, out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    raise AssertionError("the command did not end")


class Trial:
    """A site with a gateway that has just started on its store, whose nodes do all that they are told."""

    def __init__(self, folder, spec_name, seed):
        self._config, self._file, self._now_ms = write_site(folder, spec_name), folder / "model", 0
        self._key = keys.load_or_make(folder / "kept")
        model = telling_model(spec_name, seed)
        self._stack = new_store(folder / "kept", model, SITE)
        self.store = self._stack.__enter__()
        self.published = []
        self.gateway = Gateway(SITE, model, Timing(1_000), 1)
        self.rollouts = Rollouts(self.store, self.gateway, self.published.append, self._key, lambda: NOON_S)
        self.rollouts.start(self.store.active_model())
        assert 0 == thermesh("filters", "export", self._file, "--config", self._config)[0]
        self.good = self._file.read_bytes()

    def take(self, data):
        """(exit code, what it says on stderr) of an import."""
        self._file.write_bytes(data)
        public = keys.public_hex(self._key)
        code, _, err = thermesh("filters", "import", self._file, "--trust", public, "--config", self._config)
        return code, err

    def cycle(self):
        """The numbers of the filters and the head that decide the next cycle; then orders are looked at."""
        for cell in SITE.cells:
            self.gateway.on_message(topic.of_node(SITE.name, *cell, "state"), b"ready")
            if rollout := self.gateway.rollout:
                version = rollout.model.filters.version
                header = frame.header(frame.FILTERS, *cell, 1, 0, version)
                said = frame.filters(header, version, filter_set.CONFIRMED, 0)
                self.gateway.on_message(topic.of_node(SITE.name, *cell, "up"), said)
        self.gateway.start_cycle(self._now_ms)
        self._now_ms += 100_000
        outcome = self.gateway.poll(self._now_ms)
        self.rollouts.look()
        return outcome.filter_version, outcome.head_revision

    def run(self, count, seed):
        """Refusals, and what they left behind.

        Returns:
            refusals: [kind, exit code, stderr] each; decided: all (filters, head) that decided a cycle meanwhile;
            models, published: how many there are in the store and went to nodes; grown_kb: of this process;
            child_kb: the largest peak of a check; good: [exit code, stderr] of the good file, and what decides then.
        """
        filters, head, vectors = parts_of(self.good)
        refusals, decided = [], set()
        for kind, data in mutated(head, count, seed):
            refusals.append([kind, *self.take(sealed([filters, data, vectors], self._key))])
            decided.add(self.cycle())
            if len(refusals) == WARM_UP:
                before_kb = peak_kb(resource.RUSAGE_SELF)
        left = {"models": len(self.store.model_keys()), "published": len(self.published)}
        grown_kb, child_kb = peak_kb(resource.RUSAGE_SELF) - before_kb, peak_kb(resource.RUSAGE_CHILDREN)
        good = [*self.take(self.good), *[self.cycle() for _ in range(3)][-1]]
        self._stack.__exit__(None, None, None)
        measured = {"grown_kb": grown_kb, "child_kb": child_kb, "good": good}
        return {"refusals": refusals, "decided": sorted(decided)} | left | measured


def peak_kb(who):
    return resource.getrusage(who).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


if __name__ == "__main__":
    place, name, *numbers = sys.argv[1:]
    amount, start = map(int, numbers)
    print(json.dumps(Trial(Path(place), name, start).run(amount, start)))
