"""The service beside the mesh: collects cycles, decides, learns and sends better filters back."""
