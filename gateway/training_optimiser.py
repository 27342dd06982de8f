"""Optimisers of the training graph: which way a step goes, and what is remembered of each parameter for it.

By the name that a `Recipe` (gateway/training_graph.py) gives:
    sgd       against the gradient
    momentum  against the sum of all gradients so far, each worth 0.9 of itself a step later (Polyak 1964)
    adam      against their running mean, over the root of that of their squares (Kingma and Ba 2015)
"""

from gateway.training_layers import Nodes

MOMENTUM = 0.9
ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
# What an optimiser remembers of each parameter, all starting at 0.
STATE_OF = {"sgd": (), "momentum": ("velocity",), "adam": ("mean", "square")}


def state_names(optimiser: str, parameter: str) -> list[str]:
    """The optimiser's arrays for a parameter, of its shape."""
    return [f"{parameter}.{kind}" for kind in STATE_OF[optimiser]]


def direction(g: Nodes, optimiser: str, name: str) -> str:
    """Where a step of size 1 would go, downhill; the optimiser's state moves on."""
    gradient = f"gradient.{name}"
    if optimiser == "sgd":
        return gradient
    if optimiser == "momentum":
        kept = g.add("Mul", f"{name}.velocity", MOMENTUM)
        return g.add("Add", kept, gradient, name=f"next.{name}.velocity")
    squared = g.add("Mul", gradient, gradient)
    mean = _running_mean(g, f"{name}.mean", gradient, ADAM_BETA1)
    square = _running_mean(g, f"{name}.square", squared, ADAM_BETA2)
    return g.add("Div", mean, g.add("Add", g.add("Sqrt", square), ADAM_EPSILON))


def _running_mean(g: Nodes, name: str, value: str, beta: float) -> str:
    """Adam's running mean, corrected for having started at 0."""
    mean = g.add("Add", g.add("Mul", name, beta), g.add("Mul", value, 1 - beta), name=f"next.{name}")
    return g.add("Div", mean, g.add("Sub", 1.0, g.add("Pow", beta, "count")))
