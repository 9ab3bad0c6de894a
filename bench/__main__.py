"""`make bench`: every benchmark with its defaults, one JSON object a line."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("embedding", "pipeline", "sync", "manifest", "overhead", "maintain", "deid")


def main() -> int:
    """Each in a process of its own: one benchmark's memory and threads are not the next one's. The worst exit code."""
    codes = []
    for name in BENCHMARKS:
        print(f"# bench.{name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"bench.{name}", "--json"], check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main())
