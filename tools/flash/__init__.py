"""From the shared sources to what lies in a node's flash."""
