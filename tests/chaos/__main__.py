"""`python -m tests.chaos SECONDS SEED DB`: prints one line of JSON; exit status 1 for any error."""

import sys

import orjson

from tests.chaos.run import run


def main(seconds: str = "600", seed: str = "1", engine: str = "sqlite") -> int:
    """Run; print errors on standard error."""
    if engine not in ("sqlite", "postgresql"):
        sys.exit(f"DB is sqlite or postgresql, not {engine!r}")
    line, wrong = run("sqlite" if engine == "sqlite" else "postgresql", int(seed), float(seconds))
    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    sys.stderr.write("".join(f"{one}\n" for one in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
