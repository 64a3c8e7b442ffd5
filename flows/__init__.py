"""When it runs: Prefect flows and deployments, the worker, the command line."""
