"""What nodes and gateways agree on: numbers, tables, bytes. Opens nothing, sleeps never, reads no clock."""
