"""Simulations: the engine on a copy of the shop, with a clock that jumps to the next due time."""
