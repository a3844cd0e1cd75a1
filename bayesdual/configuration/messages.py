"""From what the parser and others say is wrong to one sentence that names file and key, and what to do."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from difflib import get_close_matches

from bayesdual.configuration.arguments import COMMANDS, Setting, one_line
from bayesdual.configuration.trust import not_allowed
from bayesdual.dotted import module_named, named
from bayesdual.extras import MissingExtra

TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "Sequence": "a list",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
}
DENIED = re.compile(r"Importing '([^']+)' is not allowed")  # the parser's words
LOST = re.compile(  # the words of gloo, NCCL and PyTorch
    r"(Connection (closed|reset)( or reset)? by (peer|remote peer))|remote process exited|^process \d+ terminated with"
)
FEW = 12  # so many names are listed when none is close


def parsing_complaint(message: str, settings: Sequence[Setting], accepted: Sequence[str]) -> str:
    """Says in one sentence what the parser did not like.

    Args:
        message: What it said.
        settings: All values given.
        accepted: All keys that it knows.
    """
    text = one_line(message)
    if found := re.search(r"(the environment variable .*?: --allow-env lets it).*full_key: ([\w.\[\]]+)", text):
        return f"{place(without_command(found[2]), settings)}: {found[1]}."
    if found := re.search(r"Interpolation key '([^']*)' not found.*full_key: ([\w.\[\]]+)", text):
        target, key = (without_command(k) for k in found.groups())
        return f"{place(key, settings)} refers to ${{{target}}}, which is nowhere: give {target} a value."
    if found := re.match(r"(.*?),? *full_key: ([\w.\[\]]+)", text):
        return f"{place(without_command(found[2]), settings)} has an interpolation that does not resolve: {found[1]}."
    if found := re.search(r"(?:option|Option) '([^']+)'(?: is not accepted)?", text):
        return unknown_key(without_command(found[1]), settings, accepted)
    if found := re.match(r"unrecognized arguments: (.*)", text):
        words = found[1].split()
        flag = next((word for word in words if word.startswith("--")), None)
        if flag is None:
            return f"{words[0]!r} is not understood: settings are given as --KEY VALUE, a file as --config FILE."
        return unknown_key(flag[2:].partition("=")[0], settings, accepted)
    if found := re.match(r"argument (?:-c/)?(--[\w.]+): expected one argument", text):
        return f"{found[1]} needs a value."
    if found := re.search(r"invalid choice: '([^']*)' \(choose from", text):
        return not_among("command", found[1], list(COMMANDS))
    if found := re.match(r"the following arguments are required: (.*)", text):
        return missing([without_command(k) for k in found[1].split(", ")], settings)
    if "expected" in text and "subcommand" in text:
        return f"a command is missing: choose {', '.join(COMMANDS)}."
    if keys := re.findall(r'Parser key "([^"]+)"', text):
        return wrong_value(without_command(keys[-1]), text.rpartition(f'Parser key "{keys[-1]}":')[2], settings)
    return f"{text}."


def not_among(kind: str, name: str, known: Sequence[str]) -> str:
    """Says that a name is none of those known, and which was probably meant."""
    close = get_close_matches(name, known, 1)
    return f"{name!r} is not a {kind}" + (f"; did you mean {close[0]}?" if close else f": choose {', '.join(known)}.")


def unknown_key(key: str, settings: Sequence[Setting], accepted: Sequence[str]) -> str:
    """A key that nobody asked for, with the closest one that somebody did."""
    setting = find(key, settings)
    whole = key if setting is None else up_to(setting.key, key)
    above, _, name = whole.rpartition(".")
    owner = class_of(above, settings)
    if owner is not None:
        names, of = parameters(owner), f" of {owner}"
    else:
        known = [k for k in accepted if k.startswith(f"{above}.")] if above else list(accepted)
        names, of = sorted({k.removeprefix(f"{above}.").partition(".")[0] for k in known}), ""
    close = get_close_matches(name, names, 1)
    if not close and owner is None:  # the right name in the wrong place
        close = [k for k in accepted if k.rpartition(".")[2] == name][:1] or get_close_matches(whole, accepted, 1)
    if close:
        hint = f"did you mean {close[0] if close[0] in accepted or not above else f'{above}.{close[0]}'}?"
    elif names and len(names) <= FEW:
        hint = f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}."
    else:
        hint = "--help shows all."
    return f"{place(whole, settings)} is not a setting{of}; {hint}"


def wrong_value(key: str, detail: str, settings: Sequence[Setting]) -> str:
    """A value that the parser refuses."""
    given = re.search(r"Given value: (.*)$", detail) or re.search(r"Got value: (.*)$", detail)
    setting = find(key, settings, given[1] if given else None)
    whole = key if setting is None else up_to(setting.key, key)
    if setting is not None and setting.value is None and setting.file is None:
        return f"--{whole} needs a value."
    where = place(whole, settings, setting)
    if found := DENIED.search(detail):
        return f"{where} is {not_allowed(found[1])}"
    detail = re.sub(r"^.*expects a function or a callable class: *", "", one_line(detail))
    detail = re.sub(r"-? ?Expected a path but .*? not accessible or invalid *", "", detail)
    detail = re.sub(r"\.* Got value: Namespace\(.*$", "", detail).strip(" -")
    if found := re.match(r"Problem with given class_path '([^']+)': (.*)", detail):
        return not_there(where, found[1], found[2])
    if found := re.match(r"Import path (\S+) does not correspond to a subclass of (\w+)", detail):
        return f"{where} is {found[1]}, which is no {found[2]}: give the dotted name of one."
    if "Not possible to determine the import path" in detail and setting is not None:
        return f"{where} is {setting.value}, which cannot be called: give the dotted name of a function or class."
    if found := re.match(r"Expected a dot import path string: (.*)", detail):
        return f"{where} is {found[1]!r}: give a dotted name, MODULE.NAME."
    if setting is not None and isinstance(setting.value, str) and re.search("has no|No module", detail):
        return not_there(where, setting.value, detail)
    if wanted := types_in(detail.partition("Errors:")[0]):
        return f"{where} is {given[1] if given else ''!r}: it has to be {' or '.join(wanted)}."
    return f"{where}: {one_line(detail)}."


def types_in(text: str) -> list[str]:
    """The types that a message names, in plain words."""
    collection = r"(?:list|collections\.abc\.\w+)\[(?:<class ')?([\w.]+)"
    form = rf"typing\.Literal\[([^]]*)\]|{collection}|<(?:class|enum) '([\w.]+)'>"
    words = []
    for choices, item, name in re.findall(form, text):
        simple = (item or name).rpartition(".")[2]
        plain = f"one of {choices}" if choices else TYPES.get(simple, simple)
        words.append(f"a list of {simple}" if item else plain)
    return list(dict.fromkeys(words))


def not_there(where: str, dotted: str, reason: str) -> str:
    """A dotted name that leads nowhere, with the closest one of its module, or with what its module needs."""
    try:
        named(dotted)
    except MissingExtra as error:
        return f"{where} is {dotted}: {error}"
    except Exception:  # whatever importing a stranger's module raises
        pass
    close = closest_name(dotted)
    if close is None and dotted.startswith("bayesdual."):
        return f"{where} is {dotted}, which is not there: `python -m bayesdual list` says what is."
    if close is None:
        return f"{where} is {dotted}: {one_line(reason)}."
    return f"{where} is {dotted}, which is not there; did you mean {close}?"


def missing(keys: Sequence[str], settings: Sequence[Setting]) -> str:
    """What has to be given and is not."""
    if any(s.key.split(".")[0] in ("model", "data") for s in settings):
        benchmark = class_of("data.benchmark", settings)
        if benchmark is not None and not any("." in key for key in keys):
            return f"{benchmark} needs {', '.join(keys)}: give --data.benchmark.init_args.{keys[0]} VALUE."
        return f"no value for {', '.join(keys)}: add to the configuration, or as --{keys[0]} VALUE."
    return f"no value for {', '.join(keys)}: give --config FILE, for example configs/split_digits.yaml."


def failure(error: BaseException, settings: Sequence[Setting]) -> str:
    """Says in one sentence what went wrong later; the first setting that the message names gets its whole key and file.

    Args:
        error: What was raised.
        settings: All values given.
    """
    text = one_line(error) or type(error).__name__
    plain = isinstance(error, (ValueError, OSError, ArithmeticError)) or type(error).__module__.startswith("lightning.")
    if type(error).__name__ == "ProcessRaisedException":  # of a process that was forked, with all its traceback
        text, plain = one_line(str(error).strip().splitlines()[-1].partition(": ")[2]) or text, True
    if LOST.search(text):
        return (
            "another process of this run has ended, which ends this one: what it said stands above, if it could say "
            "anything; the last checkpoint is whole."
        )
    if not plain:
        text = f"{type(error).__name__}: {text} (--debug shows where)"
    text += "" if text.endswith(("?", "!")) else "."
    for word in re.finditer(r"^\w+(?= is )|[A-Za-z_]+(?:[._]\w+)+", text):
        setting = find(word[0], settings)
        if setting is not None and setting.key.endswith(word[0]):
            key = setting.key if setting.file else f"--{setting.key}"
            text = f"{text[: word.start()]}{key}{text[word.end() :]}"
            return f"{setting.file}: {text}" if setting.file else text
    return text


def find(key: str, settings: Sequence[Setting], value: str | None = None) -> Setting | None:
    """The setting that counts among those that a key could mean: the last one, if possible of that value."""
    candidates = [s for s in settings if f".{key}." in f".{s.key}."]
    same = [s for s in candidates if value is not None and str(s.value) == value]
    return next(reversed(same or candidates), None)


def place(key: str, settings: Sequence[Setting], setting: Setting | None = None) -> str:
    """Where a key was given, for the beginning of a sentence."""
    setting = setting or find(key, settings)
    if setting is None:
        return key
    return f"{setting.file}: {key}" if setting.file else f"--{key}"


def up_to(whole: str, key: str) -> str:
    """A dotted key from its root to the end of ``key``, which is a part of it."""
    return f".{whole}."[1 : f".{whole}.".rindex(f".{key}.") + len(key) + 1]


def without_command(key: str) -> str:
    command, _, rest = key.partition(".")
    return rest if command in COMMANDS and rest else key


def class_of(above: str, settings: Sequence[Setting]) -> str | None:
    """The class path that stands beside the arguments ``above``, if there is one."""
    key = above.removesuffix(".init_args")
    for setting in reversed(settings):
        if key and setting.key in (key, f"{key}.class_path") and isinstance(setting.value, str):
            return setting.value
    return None


def parameters(dotted: str) -> list[str]:
    """The names of the parameters of a callable; none if it cannot be found."""
    try:
        return list(inspect.signature(named(dotted)).parameters)
    except Exception:  # whatever importing a stranger's module raises
        return []


def closest_name(dotted: str) -> str | None:
    """The name that was probably meant, in the same module; None if there is none or the module cannot be imported."""
    module, _, name = dotted.rpartition(".")
    try:
        names = [n for n in dir(module_named(module)) if n != name]
    except Exception:  # as above
        return None
    close = get_close_matches(name, names, 1)
    return f"{module}.{close[0]}" if close else None
