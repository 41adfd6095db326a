"""Values that change, values that follow them, and how fast they do."""
