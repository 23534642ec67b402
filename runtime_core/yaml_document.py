"""One YAML document as plain objects: safe tags alone, no key twice, no aliases."""

from __future__ import annotations

from typing import Any

import yaml

from runtime_core.errors import InvalidArgument


def parse(content: bytes, where: str) -> Any:
    """Raises InvalidArgument with `where` and the line."""
    try:
        return yaml.load(content, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidArgument(f"{where}{line}: {', '.join(filter(None, (error.context, error.problem)))}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidArgument(f"{where}: is not YAML: {' '.join(str(error).split())}") from error


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses what makes a document other than it looks."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
