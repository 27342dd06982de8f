"""The rig: one suite of golden vectors and recipes that every runtime and every board has to agree with."""
