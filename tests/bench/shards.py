#!/usr/bin/env python3
"""Measures what shards bring, and what each pays for the listing.

'./build.sh bench shards [RUNS]' calls it. Two tables. The first: 1, 2 and 4 processes share the same
items, on the MinIO of bench.py; the medians of so many runs, each checked. The second: one shard
lists a source of which nothing falls to it, so that it pays for the listing and nothing else. A
million keys come from a server that makes up its answers: MinIO would take half an hour to store
them. Standard library only.
"""

import http.server
import json
import os
import statistics
import subprocess
import tempfile
import threading
import urllib.parse
from pathlib import Path

from bench import BUCKET, KIB, Bench, Row, arguments, load, machine

# So far away that the requests in flight are the limit, and not the cores.
FAR_ONE_WAY_MS = 50
ROWS = [
    Row("shards-in", "4000 files of 4 KB in", True, 4000, 4 * KIB),
    Row("shards-out", "4000 files of 4 KB out", False, 4000, 4 * KIB),
    Row("shards-far-in", "1000 files of 4 KB in, 100 ms away", True, 1000, 4 * KIB, far=True),
    Row("shards-far-out", "1000 files of 4 KB out, 100 ms away", False, 1000, 4 * KIB, far=True),
]
COUNTS = (1, 2, 4)
LISTED = (100_000, 1_000_000)
# Of so many shards one that gets nothing, as good as certainly.
NOBODY_S = "4294967294/4294967295"
TINY = 100


def main():
    options = arguments(("mover", "mc", "minio", "delay", "floor"))
    # 'bench shards RUNS'
    runs = int(options.row) if options.row.isdecimal() else options.runs
    with tempfile.TemporaryDirectory(prefix="mover-bench.", dir=options.directory) as work:
        with Bench(options, Path(work)) as bench:
            print(machine())
            if options.tiny:
                print("tiny: shows that each row runs, the figures mean nothing")
            at_once(bench, runs, options.tiny)
            listings(bench, TINY if options.tiny else 1)
    print(f"\nload at the end: {load()}")


def at_once(bench, runs, tiny):
    print("\n| work | shards | wall s | items a second | CPU s of all shards | CPU s of MinIO | peak MiB of one |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    far = bench.away(FAR_ONE_WAY_MS)
    for row in ROWS:
        if tiny:
            row.count //= TINY
        results = {count: [] for count in COUNTS}
        for _ in range(runs):
            for count in COUNTS:
                bench.make_new(row)
                subprocess.run(["sync"], check=True)
                before = cpu_of(bench.minio.pid)
                command = bench.mover(row)
                shards = [[*command, "--shard", f"{index}/{count}"] for index in range(count)]
                figures = bench.run_at_once(shards, far if row.far else bench.near, row.name)
                results[count].append((*figures, cpu_of(bench.minio.pid) - before))
                bench.check_new(row)
        for count, figures in results.items():
            wall, cpu, peak, of_minio = (statistics.median(column) for column in zip(*figures))
            title = row.title if count == 1 else ""
            print(
                f"| {title} | {count} | {wall:.2f} | {row.count / wall:.0f} | {cpu:.2f} | "
                f"{of_minio:.2f} | {peak / KIB:.1f} |",
                flush=True,
            )


def listings(bench, divisor):
    print("\n| what one shard lists | wall s | CPU s | CPU µs an entry | CPU s of MinIO | peak MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    few = LISTED[0] // divisor
    keys = Row("listing", "", True, few, 1)
    bench.make_new(keys)
    listing(bench, keys, f"{few} keys, MinIO", bench.near)
    for count in LISTED:
        count //= divisor
        with MadeUp(count, "listing/") as made_up:
            listing(bench, keys, f"{count} keys, made up", made_up.address, count)
    row = Row("listing-files", "", False, few, 1)
    bench.make_new(row)
    listing(bench, row, f"{few} files", bench.near)


def listing(bench, row, title, address, count=None):
    count = count or row.count
    command = [*bench.mover(row), "--shard", NOBODY_S]
    before = cpu_of(bench.minio.pid)
    wall, cpu, peak = bench.run_at_once([command], address, title)
    of_minio = cpu_of(bench.minio.pid) - before
    print(
        f"| {title} | {wall:.2f} | {cpu:.2f} | {cpu * 1e6 / count:.1f} | {of_minio:.2f} | "
        f"{peak / KIB:.1f} |",
        flush=True,
    )


def cpu_of(pid):
    """Seconds that a process has computed so far, of user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class MadeUp:
    """Answers ListObjectsV2 for a bucket of so many keys, and nothing else."""

    def __init__(self, count, prefix):
        self.served = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler):
                asked = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
                first = int(asked.get("continuation-token", ["0"])[0])
                last = min(first + int(asked["max-keys"][0]), count)
                body = page(prefix, first, last, count).encode()
                handler.send_response(200)
                handler.send_header("Content-Type", "application/xml")
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)
                self.served = max(self.served, last)

            def log_message(self, *_):
                pass

        self.count = count
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind, *_):
        self.server.shutdown()
        if kind is None and self.served != self.count:
            raise SystemExit(f"only {self.served} of {self.count} keys were asked for")


def page(prefix, first, last, count):
    entries = "".join(
        f"<Contents><Key>{prefix}{number:07}.edi</Key><LastModified>2026-11-21T08:10:04.000Z"
        f"</LastModified><ETag>&#34;9a0364b9e99bb480dd25e1f0284c8555&#34;</ETag><Size>4096</Size>"
        f"<StorageClass>STANDARD</StorageClass></Contents>"
        for number in range(first, last)
    )
    more = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < count else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><KeyCount>{last - first}</KeyCount>"
        f"<MaxKeys>{last - first}</MaxKeys><IsTruncated>{json.dumps(last < count)}</IsTruncated>"
        f"{entries}{more}<EncodingType>url</EncodingType></ListBucketResult>"
    )


if __name__ == "__main__":
    main()
