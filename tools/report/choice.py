"""When each alternative is the better choice: sentences whose figures, and whose direction, come from the report."""

from collections.abc import Callable

from gateway.carried_reports import THRESHOLD_CCEL
from tools.report.lossy import RAW as RAW_UNDER_LOSS
from tools.report.lossy import REPORTED
from tools.report.room import BY_HAND, CHANGED, EVENT, RAW, SHUFFLED
from tools.report.scheme import Scheme
from tools.report.summary import Report, title

_AGGREGATED = "raw_gather_aggregated"
# They say how little can be said, not what to build.
_BOUNDS = ("one_frame", "changes_only", "naive_unicast")


def choices(report: Report) -> list[str]:
    """One line of Markdown each."""
    parts: tuple[Callable[[Report], str], ...] = (
        *(_known_rule, _one_hop, _many_hops, _control_traffic, _batteries),
        *(_small_sites, _fast_changes, _loss, _wanted_readings),
    )
    return [f"- {part(report)}" for part in parts]


def _known_rule(report: Report) -> str:
    fitted, by_hand = report.schemes[EVENT], report.schemes[BY_HAND]
    return (
        f"**The rule is known.** Filters set by hand to compute it are right in {_right(by_hand)} of the cycles for "
        f"{_bytes(by_hand.star)} a cycle; those fitted to labels, from noisy differences, which is knowing something "
        f"too, in {_right(fitted)} for {_bytes(fitted.star)}. Whoever can write the rule down should: learning is for "
        "sites whose labels come from people."
    )


def _one_hop(report: Report) -> str:
    event, changed = report.schemes[EVENT], report.schemes[CHANGED]
    rival = _least(report, event.accuracy or 0.0)
    found = (
        f"**Every node reaches the gateway in one hop.** Sending what moved by more than {_threshold()} needs no "
        f"network, no neighbours and no view: {_bytes(changed.star)} a cycle against {_bytes(event.star)} of mode "
        f"event, and the rule on these last words is right in {_right(changed)} of the cycles against {_right(event)}. "
    )
    if changed.star < event.star and (changed.accuracy or 0.0) >= (event.accuracy or 0.0):
        return found + "It is the better choice."
    return found + (
        "It is the better choice where that will do and what is simple counts for more than bytes. As right as mode "
        f"event, the next cheapest is {title(rival)}: {_bytes(report.schemes[rival].star)}."
    )


def _many_hops(report: Report) -> str:
    event = report.schemes[EVENT]
    rival = min(report.raw_gather, key=lambda name: report.schemes[name].tree)
    least = report.schemes[rival].tree
    return (
        "**Most nodes are out of its reach.** In the tree a reading costs every hop, a word to neighbours one: "
        f"{_bytes(event.tree)} a cycle for mode event, {_bytes(least)} for the least of raw gather ({title(rival)}), "
        f"{_bytes(report.schemes[_AGGREGATED].tree)} for all readings aggregated, {_bytes(report.schemes[RAW].tree)} "
        f"without. Mode event takes {_times(event.tree, least)} of the least, in the star "
        f"{_times(event.star, min(report.schemes[name].star for name in report.raw_gather))}."
    )


def _control_traffic(report: Report) -> str:
    event, raw, none = (report.schemes[name] for name in (EVENT, _AGGREGATED, "changes_only"))
    star, tree = _times(event.star_total, raw.star_total), _times(event.tree_total, raw.tree_total)
    return (
        "**Control traffic is on the bill.** Beacons and health messages alone are "
        f"{_bytes(none.star_total - none.star)} in the star and {_bytes(none.tree_total - none.tree)} in the tree. "
        f"With them mode event comes to {_bytes(event.star_total)} and {_bytes(event.tree_total)}, raw readings "
        f"aggregated to {_bytes(raw.star_total)} and {_bytes(raw.tree_total)}: mode event takes {star} and {tree} of "
        "it. Who asks for health more often has less and less to save by silence."
    )


def _batteries(report: Report) -> str:
    names = (*report.raw_gather, EVENT)
    by_mean = {name: report.schemes[name].energy_mj["nrf52840 mean"] for name in names}
    by_hottest = {name: report.schemes[name].energy_mj["nrf52840 hottest"] for name in names}
    mean, hottest = (min(by, key=lambda name: by[name]) for by in (by_mean, by_hottest))
    tone = report.schemes[EVENT].energy_mj["nrf52840 wake tone"]
    return (
        "**Batteries**, nRF52840 in the tree, mJ a node and day. The mean node: mode event "
        f"{by_mean[EVENT]:,.0f}, for in silence everybody listens, with a wake tone {tone:,.0f}; the least of raw "
        f"gather and mode event {by_mean[mean]:,.0f} ({title(mean)}). The hottest node: mode event "
        f"{by_hottest[EVENT]:,.0f}, raw readings aggregated {by_hottest[_AGGREGATED]:,.0f}, the least "
        f"{by_hottest[hottest]:,.0f} ({title(hottest)}). With next to nothing said but control traffic it "
        f"needs {_idle(report):,.0f}: sleep and the wait for beacons."
    )


def _small_sites(report: Report) -> str:
    won: list[str] = []
    lost: list[str] = []
    for side, by_name in report.small.items():
        event, raw = by_name[EVENT], by_name[RAW]
        rival = by_name[min(by_name.keys() & {*report.raw_gather}, key=lambda name: by_name[name].star_total)]
        line = (
            f"{side} x {side}: mode event {_bytes(event.star_total)}, right in {_right(event)}; the least of raw "
            f"gather {_bytes(rival.star_total)} ({_right(rival)}), all readings "
            f"{_bytes(raw.star_total)} ({_right(raw)})"
        )
        (won if rival.star_total < event.star_total else lost).append(line)
    parts = [f"raw gather takes fewer bytes at {'; '.join(won)}" if won else "raw gather takes fewer bytes at no size"]
    parts += [f"mode event does at {'; '.join(lost)}"] if lost else []
    return (
        f"**Small sites**, in the star with control traffic: {', '.join(parts)}. Where a few hundred bytes a cycle are "
        "no burden, all readings and the rule are the better choice: right as often or more, without a network."
    )


def _fast_changes(report: Report) -> str:
    slow, fast = report.steps["1"], report.steps[SHUFFLED]
    beaten = [step for step, sizes in report.steps.items() if sizes[EVENT] >= min(sizes[CHANGED], sizes[RAW])]
    verdict = (
        f"one of these takes fewer bytes than mode event at {', '.join(beaten)}"
        if beaten
        else ("neither takes fewer bytes than mode event at any pace")
    )
    return (
        f"**Rooms that change fast.** Silence rests on readings that resemble the last ones: {_bytes(slow[EVENT])} a "
        f"cycle become {_bytes(fast[EVENT])} when cycles come in any order. What moved by more than {_threshold()} "
        f"grows from {_bytes(slow[CHANGED])} to {_bytes(fast[CHANGED])}, raw readings stay at {_bytes(fast[RAW])}; "
        f"{verdict}. Raw readings, though, cost the same in every cycle, and whoever plans a channel can count on it."
    )


def _loss(report: Report) -> str:
    better: list[str] = []
    worse: list[str] = []
    for loss, ways in report.losses.items():
        best = max(REPORTED, key=lambda name: ways[name]["agree"])
        raw, event = ways[RAW_UNDER_LOSS]["agree"], ways[best]["agree"]
        line = f"{loss}: {raw:.1f} % against {event:.1f} %"
        if raw != event:
            (better if raw > event else worse).append(line)
    return (
        "**Frames are lost, nodes die.** Raw readings forget an error with the next cycle; what is carried on keeps it "
        "until somebody speaks. Share of cycles with the answer of a full exchange, raw readings sent once against the "
        f"best policy of mode event: raw readings are ahead at {'; '.join(better) or 'no loss'}, mode event is at "
        f"{'; '.join(worse) or 'no loss'}."
    )


def _wanted_readings(report: Report) -> str:
    return (
        "**The readings themselves are wanted**, to plot or to learn from: raw gather alone brings them, exactly for "
        f"{_bytes(report.schemes['deltas'].star)} a cycle in the star, to within {_threshold()} for "
        f"{_bytes(report.schemes[CHANGED].star)}. Mode event brings states."
    )


def _least(report: Report, accuracy_min: float) -> str:
    """The cheapest scheme in the star that is right as often, but for bounds and mode event of spec zone."""
    fit = {
        name: one.star
        for name, one in report.schemes.items()
        if name not in (*_BOUNDS, EVENT, BY_HAND) and "untuned" not in name and (one.accuracy or 0.0) >= accuracy_min
    }
    return min(fit, key=lambda name: fit[name])


def _idle(report: Report) -> float:
    return report.schemes["changes_only"].energy_mj["nrf52840 mean"]


def _threshold() -> str:
    return f"{THRESHOLD_CCEL / 100:.2f} degrees"


def _right(scheme: Scheme) -> str:
    return f"{scheme.accuracy:.2f} %"


def _bytes(count: float) -> str:
    return f"{count / 1000:,.1f} kB" if count >= 10_000 else f"{count:,.0f} B"


def _times(one: float, other: float) -> str:
    return f"{100 * one / other:.0f} %"
