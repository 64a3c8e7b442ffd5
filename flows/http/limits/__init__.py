"""What strangers may use of the receiver: connections, bytes, time, guesses at keys."""
