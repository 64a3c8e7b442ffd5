"""The channels. Each module exports one CHANNEL; config/channels.py loads them."""
