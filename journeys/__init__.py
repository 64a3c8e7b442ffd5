"""Journeys: their definitions, the enrollments, and the engine that moves enrollments."""
