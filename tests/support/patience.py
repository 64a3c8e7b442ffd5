"""The one limit of how long tests wait."""

# Seconds after which a test fails because something did not happen. It is a hundred times what an
# idle machine needs, so that load makes tests slower, but not fail.
PATIENCE = 600.0
