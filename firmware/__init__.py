"""The sensor node: `node.py` decides without I/O, `main.py` is the MQTT shell around it."""
