"""A simulated mesh run to its end, for tests."""

from sim.network.simulation import Simulation


def run(plan, change=None):
    """The summary; `change` gets the simulation before it begins."""
    with Simulation(plan) as simulation:
        if change:
            change(simulation)
        return simulation.run()


def broken(summary):
    """Names of the promises that were broken."""
    return {entry["promise"] for entry in summary["broken"]}
