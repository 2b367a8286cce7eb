"""Reads a Containerfile: its stages with their instructions, in order."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One stage: its base image, its name, and (instruction, arguments) in order."""

    image: str
    name: str = ""
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction):
        """The arguments of every such instruction."""
        return [arguments for name, arguments in self.steps if name == instruction]

    def environment(self):
        """What its ENV instructions set."""
        pairs = (word.partition("=") for arguments in self.all("ENV") for word in shlex.split(arguments))
        return {name: value for name, _, value in pairs}

    def command(self, instruction):
        """The words of ENTRYPOINT or CMD, which are JSON, or of HEALTHCHECK's CMD."""
        (arguments,) = self.all(instruction)
        return json.loads(arguments[arguments.index("[") :])


def stages(path):
    """The stages of a Containerfile."""
    lines = [line for line in Path(path).read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parsed = []
    for line in filter(str.strip, text.splitlines()):
        instruction, arguments = line.split(maxsplit=1)
        if instruction == "FROM":
            image, _, name = arguments.partition(" AS ")
            parsed.append(Stage(image, name))
        else:
            parsed[-1].steps.append((instruction, arguments))
    return parsed
