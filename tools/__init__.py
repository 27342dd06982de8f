"""The `thermesh` command and what stands behind it: demo, device build, rig, benchmarks."""
