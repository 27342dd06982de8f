"""The whole mesh on a virtual clock: real nodes, the real gateway, and between them a network that can be made bad."""
