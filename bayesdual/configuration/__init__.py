"""What a command line and its files say: read, parsed, and answered in one sentence where something is wrong."""

from bayesdual.configuration.arguments import (
    COMMANDS,
    RUN_COMMANDS,
    CommandLineError,
    Setting,
    anchor_interpolations,
    config_places,
    find_configs,
    join_benchmark,
    name_of_run,
    read_config,
    read_settings,
    run_of_config,
)
from bayesdual.configuration.messages import failure, parsing_complaint
from bayesdual.configuration.parser import TRAINER_DEFAULTS, Parser, resolve, run_parser

__all__ = [
    "COMMANDS",
    "RUN_COMMANDS",
    "TRAINER_DEFAULTS",
    "CommandLineError",
    "Parser",
    "Setting",
    "anchor_interpolations",
    "config_places",
    "failure",
    "find_configs",
    "join_benchmark",
    "name_of_run",
    "parsing_complaint",
    "read_config",
    "read_settings",
    "resolve",
    "run_of_config",
    "run_parser",
]
