"""What is behind the shop: who runs, what flows between them, and levers that break it."""
