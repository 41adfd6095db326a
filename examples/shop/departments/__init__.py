"""Three services beside the shop, each a process of its own, fed by the message broker."""
