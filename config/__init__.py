"""What an operator sets: settings (environment), policy (windows, caps, topics), the database."""
