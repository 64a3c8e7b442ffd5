"""What journeys did: experiments, revenue and the long-run yardstick, computed from rows."""
