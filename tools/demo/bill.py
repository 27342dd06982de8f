"""The bill of a demo: its ledger beside what else its cycles could have cost."""

from typing import Any

from gateway import ledger
from gateway.comparison import comparison
from gateway.gateway import Gateway
from tools.demo.plan import Plan


def bill(plan: Plan, gateway: Gateway, spent: ledger.Spent, cycles: int) -> dict[str, Any]:
    """Ledger and comparison of a demo's cycles, in one table.

    Args:
        plan: with the readings that nodes were given.
        gateway: with its counts, and the roll-out, if there was one.
        spent: what the nodes counted.
        cycles: how many were run, 1 or more.
    """
    traffic = gateway.traffic.copy()
    if gateway.rollout:  # whoever holds the new set has published it once for its neighbours
        version = gateway.rollout.model.filters.version
        traffic["copies"] = sum(holding.highest >= version for holding in gateway.holdings.values())
        traffic["copy_bytes"] = traffic["copies"] * len(gateway.rollout.data)
    found = ledger.ledger(plan.site, spent, traffic, cycles)
    return found | comparison(plan.site, spent, traffic, cycles, *plan.fields(cycles))
