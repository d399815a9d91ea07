"""Fails unless a registry has one list of both images, under the digests that were printed.

Usage: pushed.py HOST:PORT NAME VERSION WHAT_PUSH_PRINTED ARCHIVE_AMD64 ARCHIVE_ARM64
"""

import hashlib
import json
import sys
import tarfile
import urllib.request

LISTS = ("application/vnd.oci.image.index.v1+json, "
         "application/vnd.docker.distribution.manifest.list.v2+json")
IMAGES = ("application/vnd.oci.image.manifest.v1+json, "
          "application/vnd.docker.distribution.manifest.v2+json")


def main(place, name, version, said_name, *archives):
    with open(said_name) as file:
        said = dict(line.split(": ") for line in file.read().splitlines())
    base = f"http://{place}/v2/{name}"
    images = fetch(f"{base}/manifests/{version}", LISTS, said["digest"])["manifests"]
    for architecture, archive in zip(("amd64", "arm64"), archives, strict=True):
        [image] = [image for image in images if image["platform"]["architecture"] == architecture]
        expect(architecture, image["digest"], said[architecture])
        manifest = fetch(f"{base}/manifests/{image['digest']}", IMAGES, image["digest"])
        expect("config", manifest["config"]["digest"], "sha256:" + config_of(archive))
        for blob in [manifest["config"], *manifest["layers"]]:
            fetch_bytes(f"{base}/blobs/{blob['digest']}", "*/*", blob["digest"])
    expect("images", len(images), len(archives))
    print(f"{len(images)} images under one name, all {version}, with the digests that were printed")


def config_of(archive_name):
    with tarfile.open(archive_name) as archive:
        [image] = json.load(archive.extractfile("manifest.json"))
        return hashlib.sha256(archive.extractfile(image["Config"]).read()).hexdigest()


def fetch(url, accepted, digest):
    return json.loads(fetch_bytes(url, accepted, digest))


def fetch_bytes(url, accepted, digest):
    request = urllib.request.Request(url, headers={"Accept": accepted})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content = answer.read()
    expect(url, "sha256:" + hashlib.sha256(content).hexdigest(), digest)
    return content


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found}, not {wanted}")


main(*sys.argv[1:])
