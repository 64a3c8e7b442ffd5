"""How it goes out: planning (consent, send time, caps), dispatch, one file a provider, sandbox."""
