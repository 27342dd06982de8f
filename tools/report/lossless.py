"""Every scheme in one room without loss, each decided and counted over the cycles behind those that were learned from.

Accuracy is that of what the gateway can know: of the network's decision, or, where readings are gathered, of the
closed-form rule on what arrived. A full exchange is mode always of the network that learned from readings; for what is
gathered it is the rule on all readings.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from gateway import rule, twin
from gateway.alternatives import PerNode, alternatives
from gateway.head import HeadRunner
from gateway.model import Filters, Model, spec_named
from gateway.samples import Samples, features_of
from gateway.site import Site
from gateway.start_weights import load_start
from protocol.frame import HEADER_SIZE
from sim import announced, zones
from sim.change import Traffic, always, traffic, words
from tools.change import RULE, later_traffic, learned
from tools.report.charge import Said, said
from tools.report.scheme import Decided, Scheme, gathered, in_mesh, percent
from tools.zones import FRAMES, TRAIN

# Of its limits, what a unit of lean announces: the cheapest of those that tools/announced.py tries.
ANNOUNCED = 0.5
READING_SIZE = HEADER_SIZE + 2
# What ends in a decision; a naive convolution gathers nothing, an empty frame says nothing.
DECIDING = ("raw_gather", "raw_gather_aggregated", "deltas", "send_on_change", "changes_only")

Bools = NDArray[np.bool_]


def gathering(site: Site, samples: Samples, thresholds_ccel: tuple[int, ...]) -> Iterator[tuple[str, Scheme]]:
    """Ways without a network in the mesh, by name; send-on-change by "send_on_change 25"."""
    later = _judged(samples)
    labels = later.abnormal[1:]
    for place, threshold in enumerate(thresholds_ccel):
        view = words(later.readings_ccel, later.present, site, threshold, heartbeats=False).part(slice(1, None))
        for name, (star, tree) in _loads(site, later, threshold).items():
            moving = name == "send_on_change"
            if place and not moving:
                continue
            known, there = (view.view_ccel, view.present) if moving else (later.readings_ccel[1:], later.present[1:])
            decided = Decided(rule.abnormal(known, there), labels, labels) if name in DECIDING else None
            yield f"{name} {threshold}" if moving else name, gathered(star, tree, site, decided)


def in_mode_always(site: Site, models: dict[str, Model], samples: Samples) -> Iterator[tuple[str, Scheme]]:
    """Everything said in each cycle, by "seed always" and so on."""
    for name, model in models.items():
        everything = _said(later_traffic(model, always(samples.readings_ccel, samples.present, site), site), site)
        yield f"{name} always", in_mesh(everything, everything, site, _decided(model, model, site, samples, samples))


def in_mode_change(
    site: Site, models: dict[str, Model], samples: Samples, threshold_ccel: int, advance: Callable[[], None]
) -> Iterator[tuple[str, Scheme]]:
    """Send-on-change by models that learned from their views, as "seed change 25", and before, as "seed untuned 25"."""
    heard, rested = (
        words(samples.readings_ccel, samples.present, site, threshold_ccel, heartbeats) for heartbeats in (True, False)
    )
    stale = Samples(heard.view_ccel, heard.present, samples.abnormal)
    for name, model in models.items():
        tuned = model if name == RULE else learned(model, site, stale)[0]
        ways = {"change": tuned} if name == RULE else {"change": tuned, "untuned": model}
        for way, one in ways.items():
            everything, quiet = (_said(later_traffic(one, told, site), site) for told in (heard, rested))
            yield (
                f"{name} {way} {threshold_ccel}",
                in_mesh(quiet, everything, site, _decided(one, model, site, stale, samples)),
            )
        advance()


def in_mode_event(site: Site, filters: Filters, samples: Samples) -> Scheme:
    """A layer with sign, exact: VALUE and STATE frames; heartbeats are READING frames of those who said nothing.

    Agreement is that of all nodes' states with those of the twin for the readings.
    """
    later = _judged(samples)
    run = zones.simulate(filters, later.readings_ccel, later.present, site)
    full = twin.activations(filters, later.readings_ccel, later.present, site)[..., 0] == 1
    full &= later.present & site.mask
    by_states, by_full = (np.asarray(states.any(axis=(1, 2)))[1:] for states in (run.states, full))
    changed = np.diff(run.states, axis=0)
    value, state = FRAMES
    due = words(later.readings_ccel, later.present, site, 0).due[1:] & ~run.said[1:]
    quiet = [said("value", value * run.said[1:], site), said("state", state * changed, site)]
    found = in_mesh(
        quiet,
        [*quiet, said("reading", READING_SIZE * due, site)],
        site,
        Decided(by_states, by_full, later.abnormal[1:]),
    )
    return found._replace(agreement=percent((run.states == full).all(axis=(1, 2))[1:]))


def lean_in_mode_event(site: Site, samples: Samples) -> Iterator[tuple[str, Scheme]]:
    """The study of sim/announced.py with the hand-set filters of lean: limits announced, and known without."""
    model, later = load_start("lean", site), _judged(samples)
    if model is None:
        return
    rows, cols = np.transpose(site.cells)
    for name, share in (("lean event announced", ANNOUNCED), ("lean event", None)):
        silence = announced.simulate(model.filters, later.readings_ccel, later.present, site, share)
        word, limits = announced.sizes(model.filters, site, share)
        alone = silence.renewed[1:, rows, cols].mean(axis=0)
        upward = traffic(model.filters, silence.heard, site)
        frames = [said("value", word * silence.heard.said[1:], site), Said("value", alone, limits * alone)]
        frames += [each for each in _said(upward, site) if each.kind in ("member", "report")]
        known = Samples(silence.heard.view_ccel[1:], silence.heard.present[1:], later.abnormal[1:])
        full = decisions(model, site, later.part(slice(1, None)))
        yield name, in_mesh(frames, frames, site, Decided(decisions(model, site, known), full, known.abnormal))


def decisions(model: Model, site: Site, samples: Samples) -> Bools:
    """What a model says of each cycle, by the twin, without hysteresis."""
    runner = HeadRunner(spec_named(model.spec_name), model.head)
    scores = runner.scores(features_of(samples, model.filters, site))
    return np.asarray(scores[:, 1] >= 0.5)


def _decided(model: Model, full: Model, site: Site, known: Samples, samples: Samples) -> Decided:
    """A model on what is known, beside another one on the readings."""
    later = slice(TRAIN, None)
    return Decided(
        decisions(model, site, known.part(later)),
        decisions(full, site, samples.part(later)),
        samples.abnormal[later],
    )


def _judged(samples: Samples) -> Samples:
    """The cycles that are judged, and the one before: in the first cycle everybody speaks, so it does not count."""
    return samples.part(slice(TRAIN - 1, None))


def _loads(site: Site, later: Samples, threshold_ccel: int) -> dict[str, tuple[PerNode, PerNode]]:
    """What nodes do for each alternative, in the star and in the tree, in all cycles but the first."""
    whole, first = (
        alternatives(site, later.readings_ccel[part], later.present[part], threshold_ccel)
        for part in (slice(None), slice(1))
    )
    cycles = later.cycles

    def behind(name: str, topology: str) -> PerNode:
        pair = zip(whole[name][topology].per_node, first[name][topology].per_node, strict=True)
        return PerNode(*((cycles * each - once) / (cycles - 1) for each, once in pair))

    return {name: (behind(name, "star"), behind(name, "tree")) for name in whole}


def _said(sent: Traffic, site: Site) -> list[Said]:
    return [said(kind, sizes[1:], site) for kind, sizes in sent.sent]
