"""The channels, one file each, which exports one CHANNEL; config/channels.py finds them."""
