"""Settings by file, drop-in and option: what wins, and how each mistake is named."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from runtime_core import config
from runtime_core.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    driver: str = "loop"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.driver:
            raise InvalidArgument("driver: must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    log_level: Annotated[Literal["debug", "info"], "how much"] = "info"
    root: Annotated[Path, "where"] = Path("/var/lib/x")
    bin_dir: Annotated[tuple[str, ...], "more than one"] = ("/bin",)
    retries: Annotated[int, "how often"] = 3
    timeout: Annotated[float, "seconds"] = 1.5
    is_strict: Annotated[bool, "or not"] = False
    pools: Mapping[str, _Pool] = field(default_factory=dict)


def _settings(directory: Path, *options: str, **files: str) -> _Settings:
    """`files`: config is config.yaml, others are drop-ins; options are written as on a command line."""
    for name, text in files.items():
        path = directory / "config.yaml" if name == "config" else directory / "config.d" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    parser = argparse.ArgumentParser()
    config.add_options(parser, _Settings, directory / "config.yaml")
    return config.load_settings(_Settings, parser.parse_args(options), directory / "config.yaml")


def test_without_a_file_the_defaults_stand(tmp_path: Path) -> None:
    """The default file may be missing."""
    assert _settings(tmp_path) == _Settings()


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """Its absence is not taken for emptiness."""
    with pytest.raises(InvalidArgument, match=r"--config: /no/such\.yaml does not exist"):
        _settings(tmp_path, "--config", "/no/such.yaml")


def test_a_named_file_has_its_own_drop_ins(tmp_path: Path) -> None:
    """config.d beside it, and not that of the default file."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.yaml").write_text("retries: 5")
    (tmp_path / "other" / "config.d").mkdir()
    (tmp_path / "other" / "config.d" / "1.yaml").write_text("timeout: 7")
    found = _settings(tmp_path, "--config", str(tmp_path / "other" / "x.yaml"), config="retries: 1", a="timeout: 2")
    assert (found.retries, found.timeout) == (5, 7.0)


def test_the_later_file_wins_and_an_option_wins_over_all(tmp_path: Path) -> None:
    """Drop-ins by name; what nobody says keeps its default."""
    found = _settings(
        tmp_path, "--retries", "9", "--bin-dir", "/a", "--bin-dir", "/b",
        config="retries: 1\ntimeout: 1\nlog-level: debug\nroot: /file\nbin-dir: [/c, /d]", b="timeout: 3", a="timeout: 2\nroot: /a",
    )  # fmt: skip
    assert found == _Settings(retries=9, timeout=3.0, log_level="debug", root=Path("/a"), bin_dir=("/a", "/b"))


@pytest.mark.parametrize(("options", "is_strict"), [((), True), (("--is-strict",), True), (("--no-is-strict",), False)])
def test_a_truth_is_an_option_without_a_value(options: tuple[str, ...], is_strict: bool, tmp_path: Path) -> None:
    """And can be taken back."""
    assert _settings(tmp_path, *options, config="is-strict: true").is_strict is is_strict


def test_mappings_are_merged_deep_and_lists_are_replaced(tmp_path: Path) -> None:
    """A drop-in adds one setting of one pool."""
    found = _settings(
        tmp_path,
        config="pools: {one: {driver: a, settings: {x: 1, y: {z: 2}}}, two: {}}\nbin-dir: [/a]",
        later="pools: {one: {settings: {y: {w: [3]}}}}\nbin-dir: [/b]",
    )
    assert found.pools == {"one": _Pool(driver="a", settings={"x": 1, "y": {"z": 2, "w": [3]}}), "two": _Pool()}
    assert found.bin_dir == ("/b",)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_an_empty_file_says_nothing(text: str, tmp_path: Path) -> None:
    """Comments alone are no mistake."""
    assert _settings(tmp_path, config=text) == _Settings()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour: red", "unknown key 'colour'"),
        ("bin_dir: [/a]", "unknown key 'bin_dir'"),
        ("1: x", "unknown key 1"),
        ("retries: many", "retries: 'many' is not an integer"),
        ("retries: true", "retries: True is not an integer"),
        ("retries: 1.5", "retries: 1.5 is not an integer"),
        ("timeout: soon", "timeout: 'soon' is not a number"),
        ("is-strict: 'yes'", "is-strict: 'yes' is not true or false"),
        ("log-level: loud", "log-level: 'loud' is not one of debug, info"),
        ("root: here", "root: 'here' is not an absolute path"),
        ("root:", "root: None is not an absolute path"),
        ("bin-dir: /a", "bin-dir: '/a' is not a list"),
        ("bin-dir: [1]", r"bin-dir: \[0\]: 1 is not a string"),
        ("pools: [a]", r"pools: \['a'\] is not a mapping"),
        ("pools: {1: {}}", "pools: the key 1 is not a string"),
        ("pools: {a: {colour: red}}", "pools: 'a': unknown key 'colour'"),
        ("pools: {a: {driver: ''}}", "pools: 'a': driver: must not be empty"),
        ("retries: 1\nretries: 2", "line 2: the key 'retries' is there twice"),
        ("pools: {a: {driver: x, driver: y}}", "the key 'driver' is there twice"),
        ("- a", "is not a mapping"),
        ("retries: [", "line 1: "),
        ("a: &x [1]\nb: *x", "line 2: aliases are not allowed"),
        ("a: &x [*x]", "aliases are not allowed"),
        ("? [a]\n: b", "a key must be a scalar"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("a: 2020-13-45", "is not YAML"),
        ("a: " + "[" * 100_000, "is not YAML"),
        ("a: \0", "is not YAML"),
        ("# " + "x" * (1 << 20), "larger than"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(text: str, complaint: str, tmp_path: Path) -> None:
    """On one line, also when the file is a drop-in."""
    with pytest.raises(InvalidArgument, match=rf"config\.d/50-mine\.yaml[:,].*{complaint}") as refused:
        _settings(tmp_path, config="retries: 1", **{"50-mine": text})
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A directory in its place."""
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(InvalidArgument, match=r"config\.yaml: Is a directory"):
        _settings(tmp_path)


@pytest.mark.parametrize("options", [("--log-level", "loud"), ("--retries", "x"), ("--no-such",)])
def test_an_option_that_cannot_be_is_refused(options: tuple[str, ...], tmp_path: Path) -> None:
    """As a command line refuses it."""
    with pytest.raises(SystemExit):
        _settings(tmp_path, *options)


def test_a_section_of_another_program_is_its_own_matter(tmp_path: Path) -> None:
    """One file serves all: trivet-cri leaves the sections alone, and trivet-csi reads nothing but its own."""
    file = tmp_path / "config.yaml"
    file.write_text("retries: 5\ncsi: {retries: 7}\n")
    assert config.load_file(_Settings, file).retries == 5
    assert config.load_file(_Settings, file, "csi").retries == 7


def test_a_section_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("csi: yes\n")
    with pytest.raises(InvalidArgument, match="csi: True is not a mapping"):
        config.load_file(_Settings, file, "csi")
