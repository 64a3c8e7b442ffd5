"""What the outside world says to Segue over HTTP: events, provider call-backs, customers."""
