"""Made-up rooms of the report: every scheme and every loss, with figures that a test may set."""

from gateway.comparison import RADIOS
from tools.report.lossy import CHANGED, RAW, REPORTED
from tools.report.room import EVENT
from tools.report.scheme import Scheme
from tools.zones_loss import DYING, LOSSES

MODELS = ("seed", "lean", "zone", "rule")
GATHERED = ("raw_gather", "raw_gather_aggregated", "deltas", "naive_unicast", "one_frame", "changes_only")
THRESHOLDS = (12, 25)
NAMES = (
    *GATHERED,
    *(f"send_on_change {threshold}" for threshold in THRESHOLDS),
    *(f"{model} always" for model in MODELS),
    *(f"{model} change {threshold}" for model in MODELS for threshold in THRESHOLDS),
    *(f"{model} untuned {threshold}" for model in MODELS[:3] for threshold in THRESHOLDS),
    *("zone event", "rule event", "lean event", "lean event announced"),
)


def scheme(accuracy=97.0, size=5_000.0, agreement=100.0):
    """Everything costs the same, the tree twice as much."""
    energy = {f"{board} {which}": 900.0 for board in RADIOS for which in ("mean", "hottest", "wake tone")}
    costs = {"frames": size / 30, "quiet": size, "star": size + 100, "star_total": size + 3_000}
    return Scheme(accuracy, agreement, **costs, tree=2 * size, tree_total=9 * size, hottest=2.0, energy_mj=energy)


def loss_row(agree, size, gone=None):
    row = {"bytes": size, "agree": agree, "states": agree, "missed": 1.0, "false": 2.0}
    return row | ({"gone": gone - 5.0, "gone_max": gone} if gone else {})


def room(event=None, losses=None, **schemes):
    """As tools/report/room.py gives it; `losses`: by loss the rows of some policies; `schemes`: by name."""
    found = {name: scheme(100.0 if name in GATHERED else 97.0) for name in NAMES}
    for bound in ("naive_unicast", "one_frame"):
        found[bound] = scheme(None, 50.0, None)
    found[EVENT] = event or scheme(98.0, 500.0)
    found |= schemes
    ways = {loss: {name: loss_row(90.0, 3_000.0) for name in REPORTED} for loss in LOSSES}
    ways[DYING] = {name: loss_row(97.0, 900.0, 40.0) for name in REPORTED}
    for loss, rows in (losses or {}).items():
        ways[loss] |= rows
    for rows in ways.values():
        rows |= {RAW: {"bytes": 13_000.0, "agree": 98.0}, CHANGED: {"bytes": 2_600.0, "agree": 95.0}}
    small = {name: found[name]._asdict() for name in (*GATHERED, "send_on_change 25", EVENT)}
    sizes = {EVENT: 500.0, "send_on_change 25": 2_600.0, "raw_gather": 13_000.0}
    return {
        "schemes": {name: one._asdict() for name, one in found.items()},
        "losses": ways,
        "small": {"5": small},
        "steps": {"1": sizes, "shuffled": sizes},
    }
