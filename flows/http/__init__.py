"""The HTTP interface: events, consent, provider webhooks and the customers' pages."""
