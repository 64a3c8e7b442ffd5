"""What providers post back, one file each with `hooks(settings, policy)`. Nothing lists them."""
