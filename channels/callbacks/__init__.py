"""What providers post back, one file each, with `hooks(settings)`; nothing else lists them."""
