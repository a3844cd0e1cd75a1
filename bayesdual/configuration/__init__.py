"""What a command line and its files say: read, parsed, and answered in one sentence where something is wrong.

What parses is imported when first asked for, since it takes PyTorch and Lightning: who only reads does not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesdual.extras import require

require("bayesdual.configuration", "all")

from bayesdual.configuration.arguments import (
    COMMANDS,
    RUN_COMMANDS,
    CommandLineError,
    Setting,
    anchor_interpolations,
    config_places,
    find_configs,
    flatten,
    inline_configs,
    join_benchmark,
    name_of_run,
    read_config,
    read_settings,
    run_of_config,
    undone,
    with_current_names,
)
from bayesdual.configuration.locks import in_use, sole_use
from bayesdual.configuration.messages import failure, not_among, parsing_complaint
from bayesdual.configuration.moved import MOVED, current_name, current_names
from bayesdual.configuration.trust import (
    Trust,
    check_inside,
    check_places,
    check_run_dir,
    guarded,
    read_trust,
    refuse_other_files,
    trusting,
)
from bayesdual.lazy import attach

__all__ = [
    "COMMANDS",
    "MOVED",
    "RUN_COMMANDS",
    "TRAINER_DEFAULTS",
    "CommandLineError",
    "Parser",
    "Setting",
    "Trust",
    "anchor_interpolations",
    "check_inside",
    "check_places",
    "check_run_dir",
    "config_places",
    "current_name",
    "current_names",
    "failure",
    "find_configs",
    "flatten",
    "guarded",
    "in_use",
    "inline_configs",
    "join_benchmark",
    "name_of_run",
    "not_among",
    "parsing_complaint",
    "read_config",
    "read_settings",
    "read_trust",
    "refuse_other_files",
    "resolve",
    "run_of_config",
    "run_parser",
    "sole_use",
    "trusting",
    "undone",
    "with_current_names",
]

if TYPE_CHECKING:
    from bayesdual.configuration.parser import TRAINER_DEFAULTS, Parser, resolve, run_parser
else:
    __getattr__, __dir__ = attach(
        __name__, dict.fromkeys(("TRAINER_DEFAULTS", "Parser", "resolve", "run_parser"), "parser")
    )
