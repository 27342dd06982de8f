"""`thermesh report`: what was simulated, told as a page, a picture and one JSON object."""
