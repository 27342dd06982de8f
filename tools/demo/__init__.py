"""`thermesh demo`: a whole mesh, broker and gateway on this machine, with proof that it computed exactly."""
