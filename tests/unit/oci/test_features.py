"""The features document."""

from __future__ import annotations

import json

from runtime_core.container import mount_options
from runtime_core.kernel import namespaces
from runtime_core.oci import features


def test_document_says_what_is_there() -> None:
    """It is plain JSON, names each namespace that is supported, and only the cgroup versions that have a driver."""
    found = json.loads(
        json.dumps(
            features.document(
                mount_options=mount_options.KNOWN,
                capabilities=["CAP_CHOWN"],
                cgroup_versions=[1],
                has_apparmor=False,
            )
        )
    )
    assert set(found["linux"]["namespaces"]) == namespaces.FLAGS.keys()
    assert (found["linux"]["cgroup"]["v1"], found["linux"]["cgroup"]["v2"]) == (True, False)
    assert {"rro", "rbind", "idmap", "rslave", "nosuid"} <= set(found["mountOptions"])


def test_every_named_mount_option_is_understood() -> None:
    """No option of the document ends up as data of a file system."""
    assert mount_options.Options(list(mount_options.KNOWN), "mounts[0]").data == []
