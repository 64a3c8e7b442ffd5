"""How long tests wait for something to happen."""

# Seconds after which a test gives up on what will never come. It is a hundred times what a quiet
# machine needs, so that a loaded machine makes tests slower and never red.
PATIENCE = 600.0
