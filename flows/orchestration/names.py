"""The names of a journey in Prefect. A module without Prefect, whose import takes seconds."""

# The deployment that pauses, resumes and stops journeys.
CONTROLS = "pause-resume-stop"
# The deployment that approves and rejects launches.
APPROVALS = "approve-launch"
# The deployment that measures what all journeys do.
YARDSTICK = "yardstick"
# The deployment that simulates journeys.
SIMULATION = "simulate"
# The deployment that finds profiles that are one person.
DUPLICATES = "find-duplicates"
# The slug of the schedule that a journey's entry has; others were added in Prefect or on the site.
OWN_SCHEDULE = "from-the-journey"


def deployment_name(journey: str) -> str:
    """The full name of a journey's deployment: the flow and the deployment have the same name."""
    return f"{journey}/{journey}"


def deployment_page(api_url: str, deployment_id: str) -> str:
    """The URL of a deployment in Prefect's UI."""
    return f"{api_url.removesuffix('/api')}/v2/deployments/deployment/{deployment_id}"


def entrypoint(journey: str) -> str:
    """The entrypoint of a journey's flow: flows.orchestration.library.cart_recovery."""
    return f"flows.orchestration.library.{attribute(journey)}"


def attribute(journey: str) -> str:
    """A journey's flow in flows/orchestration/library.py: cart-recovery -> cart_recovery."""
    return journey.replace("-", "_")
