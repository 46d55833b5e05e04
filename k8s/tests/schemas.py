#!/usr/bin/env python3
"""Checks every object of a built-in kind against the strict schemas of the oldest and the newest supported Kubernetes.
Objects of other kinds are counted, and must be of a component.

    schemas.py [FOLDER]     also writes the objects of built-in kinds there, a file per overlay, for tools that know only those
"""
import sys
from pathlib import Path

import kubernetes_validate
import yaml

from objects import OVERLAYS, Findings, Overlay

OLDEST, NEWEST = "1.32", "1.37"
# Kinds that come with components; their schemas are not here.
CUSTOM = {
    "PodMonitor", "PrometheusRule", "AlertmanagerConfig", "Issuer", "Certificate", "ExternalSecret", "ScaledObject",
    "VerticalPodAutoscaler", "Schedule", "VolumeSnapshotClass",
}

Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def main() -> None:
    findings = Findings()
    custom = 0
    for name in OVERLAYS:
        objects = Overlay(name).objects
        if len(sys.argv) > 1:
            built_in = [o for o in objects if o["kind"] not in CUSTOM]
            (Path(sys.argv[1]) / f"{name}.yaml").write_text(yaml.dump_all(built_in, Dumper=Dumper))
        for o in objects:
            if o["kind"] in CUSTOM:
                findings.check(name != "dev", f"{name}: {o['kind']} is no built-in kind")
                custom += 1
                continue
            for version in (OLDEST, NEWEST):
                try:
                    kubernetes_validate.validate(o, version, strict=True)
                    findings.check(True, "")
                except Exception as e:  # of three unrelated types
                    reason = getattr(e, "message", None) or str(e)
                    findings.check(False, f"{name}: {o['kind']} {o['metadata']['name']} in {version}: {reason[:300]}")
    findings.done(f"schemas of {OLDEST} and {NEWEST} ({custom} objects of other kinds have none here)")


if __name__ == "__main__":
    main()
