"""The trial in which gateway and broker are killed: it does so, listens on the broker, and judges the store."""
