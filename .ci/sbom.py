"""Writes what the program is made of: a CycloneDX bill of materials from Cargo's own tree.

Usage: sbom.py TARGET VERSION (on standard output; only what is linked in, no tests, no build tools)
"""

import json
import subprocess
import sys


def main(target, version):
    packages = tree(target)
    root = f"pkg:cargo/bots-mover@{version}"
    json.dump({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "bots-mover",
                "version": version,
                "purl": root,
            },
        },
        "components": [component(*package) for package in packages],
    }, sys.stdout, indent=1, sort_keys=True)
    print()


def tree(target):
    """Name, version and licence of each crate that is linked into the program."""
    lines = subprocess.run(
        ["cargo", "tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro",
         "--prefix", "none", "--no-dedupe", "--format", "{p}\t{l}"],
        check=True, capture_output=True, text=True).stdout.splitlines()
    found = set()
    for line in lines:
        package, licence = line.split("\t")
        name, version, *_ = package.split(" ")
        found.add((name, version.removeprefix("v"), licence))
    return sorted(entry for entry in found if entry[0] != "bots-mover")


def component(name, version, licence):
    purl = f"pkg:cargo/{name}@{version}"
    entry = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        # Cargo once took a slash for OR.
        entry["licenses"] = [{"expression": " OR ".join(part.strip() for part in licence.split("/"))}]
    return entry


main(*sys.argv[1:])
