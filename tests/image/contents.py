"""Fails unless a saved image holds the program, its licence, a /tmp and nothing else.

Usage: contents.py ARCHIVE ARCHITECTURE VERSION [SIZE_LIMIT_BYTES]
ARCHIVE is what 'docker save' or './build.sh image' writes.
"""

import json
import stat
import sys
import tarfile

SIZE_LIMIT_BYTES = 4_000_000  # of a program that was optimised

FILES = [
    "-rw-r--r-- 0:0 LICENSE",
    "-rwxr-xr-x 0:0 bots-mover",
    "drwxrwxrwt 0:0 tmp",
]

# Builders add it by themselves; nothing in the image asks for it.
FORCED_ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def main(archive_name, architecture, version, limit_bytes=SIZE_LIMIT_BYTES):
    with tarfile.open(archive_name) as archive:
        image = json.load(archive.extractfile("manifest.json"))[0]
        config = json.load(archive.extractfile(image["Config"]))
        files, size_bytes = [], 0
        for layer in image["Layers"]:
            size_bytes += archive.getmember(layer).size
            with tarfile.open(fileobj=archive.extractfile(layer)) as members:
                files += [line(member) for member in members if member.name != "."]

    expect("files", sorted(files), FILES)
    expect("name", image["RepoTags"], [f"localhost/bots-mover:{version}"])
    expect("machine", (config["os"], config["architecture"]), ("linux", architecture))
    expect("time", config["created"], "1970-01-01T00:00:00Z")
    settings = {key: value for key, value in config["config"].items() if value}
    labels = settings.pop("Labels")
    if settings.pop("Env", FORCED_ENVIRONMENT) != FORCED_ENVIRONMENT:
        sys.exit("the image sets variables")
    settings.pop("WorkingDir", "/")
    expect("settings", settings, {"User": "1000:1000", "Entrypoint": ["/bots-mover"]})
    begin = "org.opencontainers.image."
    expect("labels", sorted(labels),
           [begin + name for name in ("description", "licenses", "title", "version")])
    expect("version", labels[begin + "version"], version)
    if size_bytes > int(limit_bytes):
        sys.exit(f"the layers have {size_bytes} bytes, more than {limit_bytes}")
    print(f"{architecture}: {', '.join(FILES)}, nothing else; {size_bytes} bytes")


def line(member):
    """One file as 'ls -l' shows it."""
    kind = stat.S_IFDIR if member.isdir() else stat.S_IFREG if member.isfile() else 0
    name = member.name.removeprefix("./").rstrip("/")
    return f"{stat.filemode(kind | member.mode)} {member.uid}:{member.gid} {name}"


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what} of the image: {found}, not {wanted}")


main(*sys.argv[1:])
