"""What should happen: journeys as data, enrollments as rows, the engine that moves them."""
