#!/usr/bin/env python3
"""Runs the pods of overlays/dev with runc, as the manifests say: image, command, arguments, variables, ConfigMaps, Secrets,
volumes, user, read-only root, and the probes. One executor instead of two, because all share one network.

Needs root, runc, and the archives of `dev/image.sh build` and `dev/image.sh s3`. The network is a fresh namespace with a loopback
only; services are names in /etc/hosts. It shows that the pieces fit, not what a kubelet does.
"""
import base64
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from objects import Overlay, Pod

CACHE = Path(os.environ.get("MILLSTREAM_CACHE", Path.home() / ".cache" / "millstream"))
READY_SECONDS = 20
RECORDS = 1000


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(s, 0x8914, request)  # SIOCSIFFLAGS


class Running:
    """One pod as one container."""

    def __init__(self, overlay: Overlay, pod: Pod, ordinal: int, folder: Path):
        self.overlay, self.pod, self.folder = overlay, pod, folder
        self.name = f"{pod.owner}-{ordinal}"
        self.container = pod.containers[0]
        self.bundle = folder / self.name
        (self.bundle / "rootfs").mkdir(parents=True)
        self.unpack()
        subprocess.run(["runc", "spec"], cwd=self.bundle, check=True)
        self.configure()

    def unpack(self) -> None:
        archive = CACHE / "images" / f"{self.container['image'].split(':')[0]}.tar"
        if not archive.exists():
            sys.exit(f"{archive} is not there; run dev/image.sh build and dev/image.sh s3")
        with tarfile.open(archive) as outer:
            manifest = json.load(outer.extractfile("manifest.json"))[0]
            for layer in manifest["Layers"]:
                with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                    inner.extractall(self.bundle / "rootfs")

    def variables(self) -> dict[str, str]:
        out: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    out |= self.content(kind, source[key]["name"])
        fields = {"metadata.name": self.name, "metadata.namespace": "millstream"}
        for e in self.container.get("env", []):
            value = e.get("value")
            if value is None:
                source = e["valueFrom"]
                if "fieldRef" in source:
                    value = fields[source["fieldRef"]["fieldPath"]]
                else:
                    key = source["secretKeyRef"]
                    value = self.content("Secret", key["name"])[key["key"]]
            for name, text in out.items():
                value = value.replace(f"$({name})", text)
            out[e["name"]] = value
        return out

    def content(self, kind: str, name: str) -> dict[str, str]:
        found = self.overlay.get(kind, name)
        if found is None:
            return {}  # optional; the cross-references have checked that it may be missing
        if kind == "Secret":
            return {k: base64.b64decode(v).decode() for k, v in found["data"].items()}
        return found["data"]

    def mount(self, at: str, source: Path, mode: str) -> dict:
        return {"destination": at, "type": "bind", "source": str(source), "options": ["bind", mode]}

    def mounts(self) -> list[dict]:
        out = [self.mount("/etc/hosts", self.folder / "hosts", "ro")]
        volumes = {v["name"]: v for v in self.pod.spec["volumes"]}
        user = self.pod.spec["securityContext"]["runAsUser"]
        for m in sorted(self.container["volumeMounts"], key=lambda m: m["mountPath"]):
            volume = volumes[m["name"]]
            place = self.bundle / "volumes" / m["name"]
            place.mkdir(parents=True)
            if "emptyDir" in volume:
                os.chown(place, user, user)
            elif "configMap" in volume:
                for file, text in self.content("ConfigMap", volume["configMap"]["name"]).items():
                    (place / file).write_text(text)
            elif "projected" not in volume:  # the API token: there is no API here
                sys.exit(f"{self.name}: volume {m['name']} is of a kind that this test does not know")
            out.append(self.mount(m["mountPath"], place, "ro" if m.get("readOnly") else "rw"))
        return out

    def configure(self) -> None:
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        security, own = self.pod.spec["securityContext"], self.container["securityContext"]
        config["process"] |= {
            "terminal": False,
            "user": {"uid": security["runAsUser"], "gid": security["runAsGroup"]},
            "args": self.container["command"] + self.container.get("args", []),
            "cwd": "/",
            "env": [f"{k}={v}" for k, v in self.variables().items()],
            "capabilities": {},
            "rlimits": [],
            "noNewPrivileges": not own["allowPrivilegeEscalation"],
        }
        config["root"] = {"path": "rootfs", "readonly": own["readOnlyRootFilesystem"]}
        config["mounts"] = [m for m in config["mounts"] if m["type"] != "cgroup"] + self.mounts()
        # The root is read-only: what is mounted over must exist before.
        (self.bundle / "rootfs" / "etc" / "hosts").touch()
        keep = [n for n in config["linux"]["namespaces"] if n["type"] not in ("network", "cgroup")]
        config["linux"] |= {"namespaces": keep, "resources": {}}
        path.write_text(json.dumps(config))

    def start(self) -> None:
        self.log = open(self.bundle / "log", "wb")
        self.process = subprocess.Popen(
            ["runc", "--root", str(self.folder / "runc"), "run", "--bundle", str(self.bundle), f"{self.folder.name}-{self.name}"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
        )

    def url(self, probe: str) -> str:
        get = self.container[probe]["httpGet"]
        return f"http://127.0.0.1:{self.pod.ports()[get['port']]}{get['path']}"

    def answers(self, probe: str) -> bool:
        try:
            with urllib.request.urlopen(self.url(probe), timeout=self.container[probe].get("timeoutSeconds", 1)) as r:
                return r.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def signal(self, name: str) -> None:
        subprocess.run(
            ["runc", "--root", str(self.folder / "runc"), "kill", f"{self.folder.name}-{self.name}", name],
            stderr=subprocess.DEVNULL,
        )


def wait(what: str, holds, seconds: float, pods: list[Running]) -> float:
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            fail(f"{what}: not within {seconds} s", pods)
        for p in pods:
            if p.process.poll() is not None:
                fail(f"{what}: {p.name} has ended with {p.process.returncode}", pods)
        time.sleep(0.05)
    return time.monotonic() - began


def fail(message: str, pods: list[Running]) -> None:
    for p in pods:
        tail = (p.bundle / "log").read_bytes()[-1500:].decode(errors="replace")
        print(f"--- {p.name}\n{tail}", file=sys.stderr)
    sys.exit(message)


def metric(name: str) -> float:
    with urllib.request.urlopen("http://127.0.0.1:8080/metrics", timeout=2) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
    return 0.0


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("pods.py: runc needs root")
    if "--inside" not in sys.argv:
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv, "--inside"])
    loopback_up()
    overlay = Overlay("dev")
    pods = {p.owner: p for p in overlay.pods()}
    # One executor on this network, so the driver waits for one.
    for e in pods["millstream-driver"].containers[0]["env"]:
        if e["name"] == "MILLSTREAM__DRIVER__EXECUTORS":
            e["value"] = "1"
    (CACHE / "run").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pods-", dir=CACHE / "run"))
    folder.chmod(0o755)
    names = sorted(overlay.names("Service") | {"millstream-executor-0.millstream-executor"})
    (folder / "hosts").write_text("".join(f"127.0.0.1 {n}\n" for n in ["localhost", *names]))
    running: list[Running] = []
    try:
        for owner in ("millstream-dev-s3", "millstream-driver", "millstream-executor"):
            running.append(Running(overlay, pods[owner], 0, folder))
        began = time.monotonic()
        for p in running:
            p.start()
        for p in running:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                wait(f"{p.name}: {probe}", lambda: p.answers(probe), READY_SECONDS, running)
        print(f"ready after {time.monotonic() - began:.1f} s")
        wait("records", lambda: metric("millstream_source_records_total") >= RECORDS, 20, running)
        bucket = folder / "millstream-dev-s3-0" / "volumes" / "bucket"
        wait("a checkpoint", lambda: metric("millstream_checkpoints_completed_total") >= 1, 20, running)
        wait("output", lambda: any(bucket.glob("bids-per-window/*.parquet")), 40, running)
        s3, driver, executor = running
        for p in (driver, executor):  # the store must outlive them
            p.signal("TERM")
            code = p.process.wait(p.pod.spec["terminationGracePeriodSeconds"])
            if code != 0:
                fail(f"{p.name}: exit code {code} after SIGTERM", running)
        print(f"the pods of overlays/dev run: {len(list(bucket.glob('bids-per-window/*.parquet')))} files of output, ended with 0")
    finally:
        for p in running:
            if hasattr(p, "process") and p.process.poll() is None:
                p.signal("KILL")
                p.process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
