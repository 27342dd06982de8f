"""Mode change by its definition: who knows only what was said to him, written out node by node."""

import numpy as np
from test_twin import around

from gateway import twin
from gateway.site import block_of
from sim.change import owners


class Listeners:
    """Everybody with nothing but what was said to him; the definition, written out node by node.

    Attributes:
        features: what the gateway knows, [block rows, block cols, channels], -1 where nothing is pooled.
    """

    def __init__(self, filters, site):
        self._filters, self._site = filters, site
        self._words = dict.fromkeys(site.cells)  # of each node, heard by all around it
        self._said = {}  # last frames by (kind, exchange, cell)
        self.features = np.full((*site.block_shape, filters.layers[-1].channels_out), -1)

    def hear(self, readings, cycle, found, due):
        """Go through one cycle's frames in their order."""
        due, sent = due if cycle else self._site.mask, [(kind, sizes[cycle]) for kind, sizes in found.sent]
        for kind, sizes in sent[:2]:
            for cell in self._sending(sizes):
                self._words[cell] = int(readings[cell]) if kind == "reading" else None
                self._say("word", 0, cell, self._words[cell], due)
                if kind == "no_reading":  # then its activations are forgotten
                    self._said = {key: said for key, said in self._said.items() if key[2] != cell or key[0] == "word"}
        values, exchange = {}, 0
        for index, layer in enumerate(self._filters.layers):
            if layer.kind == "conv3x3" and index:
                exchange += 1
                for cell in self._sending(sent[1 + exchange][1]):
                    self._say("activations", exchange, cell, values[cell], due)
            values = {cell: self._unit(layer, index, exchange, cell, values) for cell in self._with_reading()}
        self._pool(values, sent, due)

    def _with_reading(self):
        return [cell for cell in self._site.cells if self._words[cell] is not None]

    def _sending(self, sizes):
        return [cell for cell in self._site.cells if sizes[cell]]

    def _say(self, kind, exchange, cell, content, due):
        if not due[cell] and kind != "word":
            assert content != self._said.get((kind, exchange, cell)), f"{kind} of {cell} was known"
        self._said[kind, exchange, cell] = content

    def _unit(self, layer, index, exchange, cell, values):
        own = values[cell] if index else (self._words[cell] - self._filters.reference_ccel,)
        taps = [[value] * 9 for value in own] if layer.kind == "conv3x3" else [[value] for value in own]
        if layer.kind == "conv3x3":
            for slot, other in around(self._site, *cell):
                if self._words[other] is not None:
                    reading = (self._words[other] - self._filters.reference_ccel,)
                    heard = self._said["activations", exchange, other] if index else reading
                    for channel, value in enumerate(heard):
                        taps[channel][slot + (slot >= 4)] = value
        return tuple(twin.unit(layer, np.array(taps).ravel()).tolist())

    def _absence(self, cell):
        return sum(1 << slot for slot, other in around(self._site, *cell) if self._words[other] is None)

    def _pool(self, values, sent, due):
        members, reports = (dict(sent)[kind] for kind in ("member", "report"))
        assert not (members * owners(self._site)).any()
        for cell in self._sending(members):
            self._say("member", 0, cell, (values[cell], self._absence(cell)), due)
        for cell in self._sending(reports):
            block, known = block_of(cell), {}
            for other in self._site.cells:
                if block_of(other) == block and self._words[other] is not None:
                    own = values[other], self._absence(other)
                    known[other] = own if other == cell else self._said["member", 0, other]
                    assert own == known[other]
            tops = [max(channel) for channel in zip(*(heard for heard, _ in known.values()), strict=True)]
            absences = {other: absence for other, (_, absence) in known.items()}
            self._say("report", 0, cell, (tops, absences), due)
            self.features[block] = tops or -1
        self._check_reports()

    def _check_reports(self):
        """With last words the last reports are enough to recompute every feature: who is pooled, and who was absent."""
        known = {}
        for cell in np.argwhere(owners(self._site)).tolist():
            known |= self._said["report", 0, tuple(cell)][1]
        assert {cell: self._absence(cell) for cell in self._with_reading()} == known
