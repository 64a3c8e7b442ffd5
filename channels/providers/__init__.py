"""One file for each provider. Each has `connect(settings) -> Provider`; nothing else lists them."""
