"""Computed traits: what a profile's events come to, kept beside its attributes."""
