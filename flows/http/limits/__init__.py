"""Limits on what an unauthenticated client can use: connections, bytes, time, key guesses."""
