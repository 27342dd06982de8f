"""A world for the mesh: its temperatures, its lossy network, and the experiments made in it."""
