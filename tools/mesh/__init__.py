"""A whole mesh of real nodes on one machine: one host process, told by JSON lines what to start and what to kill."""
