"""The physical temperature field that a simulated site measures."""
