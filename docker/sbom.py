#!/usr/bin/env python3
"""Writes a software bill of materials (CycloneDX 1.5, JSON) of one program to standard output.

    docker/sbom.py PROGRAM CARGO_LOCK [LIBRARY…]

Crates are those that Cargo.lock has below the program's package. The lock file does not tell the dependencies of tests
from others, so the list can hold a few crates more than the program. Shared libraries are named by their Debian package.
"""
import json
import subprocess
import sys
import tomllib
from pathlib import Path

# The command line is the package `millstream-cli`; the two daemons are called like their packages.
PACKAGES = {"millstream": "millstream-cli"}


def crates_below(lock: dict, root: str) -> list[dict]:
    """Packages of the lock file that `root` depends on, itself included."""
    by_name: dict[str, list[dict]] = {}
    for package in lock["package"]:
        by_name.setdefault(package["name"], []).append(package)
    if root not in by_name:
        sys.exit(f"sbom.py: the lock file has no package {root}")
    seen: dict[tuple[str, str], dict] = {}
    waiting = list(by_name[root])
    while waiting:
        package = waiting.pop()
        key = (package["name"], package["version"])
        if key in seen:
            continue
        seen[key] = package
        for dependency in package.get("dependencies", []):
            name, *version = dependency.split(" ")
            waiting += [p for p in by_name[name] if not version or p["version"] == version[0]]
    return [seen[key] for key in sorted(seen)]


def crate(package: dict) -> dict:
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    component = {"type": "library", "name": package["name"], "version": package["version"], "purl": purl, "bom-ref": purl}
    if "checksum" in package:
        component["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
    return component


def debian_package(library: str) -> tuple[str, str] | None:
    """Name and version of the package that owns a file, by either of its paths on a merged /usr."""
    real = str(Path(library).resolve())
    for path in (library, f"/usr{library}", real, real.removeprefix("/usr")):
        found = subprocess.run(["dpkg", "-S", path], capture_output=True, text=True)
        if found.returncode == 0:
            name = found.stdout.split(": ")[0].split(",")[0]
            version = subprocess.run(
                ["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True, check=True
            ).stdout
            return name.split(":")[0], version
    return None


def main() -> None:
    program, lock_path, *libraries = sys.argv[1:]
    lock = tomllib.loads(Path(lock_path).read_text())
    package = PACKAGES.get(program, program)
    components = [crate(p) for p in crates_below(lock, package) if p["name"] != package]
    owners = {owner for owner in map(debian_package, libraries) if owner}
    for name, version in sorted(owners):
        purl = f"pkg:deb/debian/{name}@{version}"
        components.append({"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl})
    version = next(p["version"] for p in lock["package"] if p["name"] == package)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": program, "version": version, "bom-ref": program}},
        "components": components,
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
