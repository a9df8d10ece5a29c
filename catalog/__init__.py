"""What is declared (`declaration`), what is known (`evidence`), and the pure `statistics` both sides use."""
