"""Programs of others, built from the Go module proxy and kept in a cache directory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
#: program → (module directory, package, build tags)
_PACKAGES = {
    "kubelet": ("kubelet", "k8s.io/kubernetes/cmd/kubelet", ""),
    "kube-apiserver": ("kubelet", "k8s.io/kubernetes/cmd/kube-apiserver", ""),
    "kube-controller-manager": ("kubelet", "k8s.io/kubernetes/cmd/kube-controller-manager", ""),
    "kubectl": ("kubelet", "k8s.io/kubernetes/cmd/kubectl", ""),
    "streams": ("streams", ".", ""),
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3", ""),
    "registry": ("registry", "github.com/distribution/distribution/v3/cmd/registry", ""),
    "containerd": ("containerd", "github.com/containerd/containerd/v2/cmd/containerd", ""),
    "containerd-shim-runc-v2": ("containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", ""),
    "runc": ("containerd", "github.com/opencontainers/runc", "seccomp"),
    "bridge": ("containerd", "github.com/containernetworking/plugins/plugins/main/bridge", ""),
    "loopback": ("containerd", "github.com/containernetworking/plugins/plugins/main/loopback", ""),
    "host-local": ("containerd", "github.com/containernetworking/plugins/plugins/ipam/host-local", ""),
    "portmap": ("containerd", "github.com/containernetworking/plugins/plugins/meta/portmap", ""),
    "csi-sanity": ("csi", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity", ""),
    "cnitool": ("cni", "github.com/containernetworking/cni/cnitool", ""),
    "static": ("cni", "github.com/containernetworking/plugins/plugins/ipam/static", ""),
    "firewall": ("cni", "github.com/containernetworking/plugins/plugins/meta/firewall", ""),
    "bandwidth": ("cni", "github.com/containernetworking/plugins/plugins/meta/bandwidth", ""),
    "tuning": ("cni", "github.com/containernetworking/plugins/plugins/meta/tuning", ""),
    "sbr": ("cni", "github.com/containernetworking/plugins/plugins/meta/sbr", ""),
    "ptp": ("cni", "github.com/containernetworking/plugins/plugins/main/ptp", ""),
    "macvlan": ("cni", "github.com/containernetworking/plugins/plugins/main/macvlan", ""),
    "tap": ("cni", "github.com/containernetworking/plugins/plugins/main/tap", ""),
    "host-device": ("cni", "github.com/containernetworking/plugins/plugins/main/host-device", ""),
}
_MINUTES = 40


def build(name: str) -> Path:
    """The program `name`; minutes when it is built for the first time, seconds after.

    Raises subprocess.CalledProcessError with what the compiler said. runc needs libseccomp-dev (Debian).
    """
    cache = Path(os.environ.get("TRIVET_PEERS") or Path.home() / ".cache" / "trivet" / "peers")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / name
    module, package, tags = _PACKAGES[name]
    subprocess.run(
        ["go", "build", "-trimpath", "-mod=readonly", "-tags", tags, "-o", str(target), package],
        cwd=_HERE / module,
        check=True,
        timeout=_MINUTES * 60,
    )
    return target
