"""Message brokers: how other services hear of what was committed here."""
