"""Make the committed start weights: `python -m tools.fit_start`.

Fits each spec's head to simulated lounges, writes gateway/weights/, and prints how often the loaded result is right in
lounges that it was not fitted to, beside what needs no network: the majority class, and the rule that made the labels
(right by construction; the filters of lean and zone are set by hand to compute it), also on readings with extra noise.
Zone needs no file; filters fitted for it are judged as well, to see what is learned from differences alone.
About two minutes on one core.
"""

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from gateway import twin
from gateway.head import HeadRunner
from gateway.head_fit import fit_head
from gateway.model import SPECS, Model, ModelSpec
from gateway.rule import abnormal
from gateway.samples import Samples
from gateway.sign_fit import fit_filters
from gateway.site import Site, lounge
from gateway.start_weights import load_start, save_start, sign_head, start_filters
from sim.field.lounge import Lounge, simulate

# A room teaches its own corners: seed heads fitted to 12 rooms were right in 93 % of other rooms' cycles, to 48 in 98.
FIT_SEEDS = range(2_000, 2_060)
TEST_SEEDS = range(3_000, 3_010)
TEST_SLOTS = 2_961
# Every eighth slot of 60 days: neighbouring slots are nearly the same field.
FIT_SLOTS, FIT_STRIDE = 2_880, 8
ZONE_STRIDE = 9
# So that a missing node is nothing new: in a quarter of the cycles up to this share has no reading.
SILENT_SHARE_MAX = 0.2
TEST_SILENT_SHARE = 0.1
NOISE_CCEL = 10
SEED = 1

Fields = NDArray[np.int16]


def main() -> None:
    """Fit, save, load, judge, print."""
    site = lounge()
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        fitted_on = _simulated(FIT_SEEDS, FIT_SLOTS, bars)[:, ::FIT_STRIDE].reshape(-1, site.rows, site.cols)
        samples = _with_silence(_flipped(fitted_on), np.random.default_rng(SEED))
        for spec in SPECS.values():
            if not spec.has_sign:
                _fit(spec, site, samples, bars)
        fitted = _fitted_zone(site, samples, bars)
        rooms = _simulated(TEST_SEEDS, TEST_SLOTS, bars)
        for line in [*_report(site, rooms), _row("zone, fitted", fitted, site, rooms)]:
            print(line)


def _simulated(seeds: range, slots: int, bars: Progress) -> Fields:
    """Lounges one after the other: int16 [rooms, slots, rows, cols]."""
    return np.stack([simulate(Lounge(seed=seed), slots) for seed in bars.track(seeds, description="simulating")])


def _flipped(fields: Fields) -> Fields:
    """The fields and their three mirror images, of which the rule says the same."""
    return np.concatenate([fields, fields[:, ::-1], fields[..., ::-1], fields[:, ::-1, ::-1]])


def _with_silence(fields: Fields, rng: np.random.Generator) -> Samples:
    """Labelled cycles, a quarter of them with silent nodes; the label knows only pairs that have readings."""
    share = SILENT_SHARE_MAX * rng.random(len(fields)) * (rng.random(len(fields)) < 0.25)
    present = rng.random(fields.shape, np.float32) >= share[:, np.newaxis, np.newaxis]
    return Samples(fields, present, abnormal(fields, present))


def _fit(spec: ModelSpec, site: Site, samples: Samples, bars: Progress) -> None:
    task = bars.add_task(f"fitting {spec.name}")
    filters = start_filters(spec, site.reference_ccel)
    head = fit_head(
        spec, site, filters, samples, SEED, lambda done, total: bars.update(task, completed=done, total=total)
    )
    save_start(Model(spec.name, filters, head), site)


def _fitted_zone(site: Site, samples: Samples, bars: Progress) -> Model:
    """Filters for every site, fitted to a part of the cycles: five filters learn little from more."""
    task, spec, few = bars.add_task("fitting zone"), SPECS["zone"], samples.part(slice(None, None, ZONE_STRIDE))
    filters = fit_filters(spec, site, few, SEED, lambda done, total: bars.update(task, completed=done, total=total))
    return Model(spec.name, filters, sign_head(spec, site))


def _row(name: str, model: Model, site: Site, rooms: Fields) -> str:
    everywhere = np.broadcast_to(site.mask, rooms.shape[1:])
    return _line(name, np.array([_accuracy(model, site, room, everywhere) for room in rooms]))


def _report(site: Site, rooms: Fields) -> list[str]:
    """Accuracies over all test rooms, and those of the worst and the best."""
    everywhere = np.broadcast_to(site.mask, rooms.shape[1:])
    rng = np.random.default_rng(SEED)
    lines = [f"{len(rooms)} lounges not fitted to, {rooms.shape[1]} cycles each; right in % (worst .. best lounge)"]
    shares = np.array([abnormal(room, everywhere).mean() for room in rooms])
    lines.append(_line("majority class", np.maximum(shares, 1 - shares)))
    lines.append(_line("rule on the readings", np.ones(len(rooms))))
    noisy = [np.rint(room + rng.normal(0, NOISE_CCEL, room.shape)).astype(np.int16) for room in rooms]
    agreed = [(abnormal(a, site.mask) == abnormal(b, site.mask)).mean() for a, b in zip(noisy, rooms, strict=True)]
    lines.append(_line("rule, noise of 0.1 degrees", np.array(agreed)))
    for spec in SPECS.values():
        model = load_start(spec.name, site)
        if model:
            complete = [_accuracy(model, site, room, everywhere) for room in rooms]
            silent = [_accuracy(model, site, room, rng.random(room.shape) >= TEST_SILENT_SHARE) for room in rooms]
            lines.append(_line(spec.name, np.array(complete)))
            lines.append(_line(f"{spec.name}, 10 % of nodes silent", np.array(silent)))
    return lines


def _line(name: str, shares: NDArray[np.float64]) -> str:
    return f"{name:28} {100 * shares.mean():6.2f}  ({100 * shares.min():.2f} .. {100 * shares.max():.2f})"


def _accuracy(model: Model, site: Site, fields: Fields, present: NDArray[np.bool_]) -> float:
    """Share of cycles in which the score and the rule, over pairs with readings, say the same."""
    features = twin.features(model.filters, fields, present, site)
    scores = HeadRunner(SPECS[model.spec_name], model.head).scores(features.reshape(len(features), -1))
    return float(((scores[:, 1] >= 0.5) == abnormal(fields, present)).mean())


if __name__ == "__main__":
    main()
