"""What configurations of strangers may do: nothing hostile here is executed, read, or written to."""

import os
from pathlib import Path

import pytest

from bayesdual.configuration import (
    CommandLineError,
    Setting,
    Trust,
    check_inside,
    check_places,
    check_run_dir,
    read_trust,
    resolve,
    trusting,
)
from bayesdual.dotted import NotAllowed, named, only_from
from bayesdual.serving.from_run import made
from tests.cli.test_fit import TINY, call, config_of, refused

STRANGERS = '''
from pathlib import Path
from torch import nn
Path("imported").touch()

class Network(nn.Linear):
    """A stranger's."""
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with ``tiny.yaml``, a module of a stranger's, and something secret in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SECRET_OF_TEST", "0.25")
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "strangers.py").write_text(STRANGERS)
    return tmp_path


def refusal(text, *more, trust=None):
    """What is said of a configuration after ``tiny.yaml``."""
    Path("hostile.yaml").write_text(text)
    with trusting(trust or Trust()), pytest.raises(CommandLineError) as raised:
        resolve("tiny.yaml", "hostile.yaml", *more)
    assert not Path("executed").exists() and not Path("imported").exists()
    return str(raised.value)


@pytest.mark.parametrize(
    "value",
    ["${oc.env:SECRET_OF_TEST}", "${oc.${data.evaluate_on}:SECRET_OF_TEST}", "${oc.env:NOT_THERE,0.5}"],
    ids=["plainly", "by a name that is put together", "with a default"],
)
def test_the_environment_is_read_where_that_is_asked_for_alone(here, value):
    text = f"model: {{lr_end: '{value}'}}\ndata: {{evaluate_on: env}}"
    assert refusal(text).startswith("hostile.yaml: model.lr_end: the environment variable ")
    with trusting(Trust(allow_env=True)):
        assert resolve("tiny.yaml", "hostile.yaml")["model"]["lr_end"] == (0.5 if "NOT" in value else 0.25)
    assert refusal(text).endswith("is not for a configuration to read: --allow-env lets it.")  # as before


def test_the_command_line_takes_both_flags_before_and_after_the_command(here):
    Path("secret.yaml").write_text("model: {lr_end: '${oc.env:SECRET_OF_TEST}'}")
    argv = ["fit", "--config", "tiny.yaml", "--config", "secret.yaml", "--print_config"]
    assert "secret.yaml: model.lr_end: the environment variable SECRET_OF_TEST" in refused(*argv)
    status, out, err = call("--only-from", "bayesdual", *argv, "--allow-env")
    assert status == 0 and config_of(out)["model"]["lr_end"] == 0.25, err
    assert refused(*argv, "--only-from=a,").startswith("--only-from needs modules")
    assert read_trust(["fit", "--only-from=a,b.c", "--x", "1"]) == (["fit", "--x", "1"], Trust(False, ("a", "b.c")))


COMMANDS = {
    "os.system": "{command: touch executed}",
    "subprocess.getoutput": "{cmd: touch executed}",
    "torch.os.system": "{command: touch executed}",
    "torch.hub.load": "{repo_or_dir: ., model: x, source: local}",
    "torch.load": "{f: executed, weights_only: false}",
    "builtins.open": "{file: executed, mode: w}",
}


@pytest.mark.parametrize(("name", "arguments"), COMMANDS.items())
@pytest.mark.parametrize("trust", [Trust(), Trust(only_from=("bayesdual", "torch"))], ids=["any", "only from"])
def test_what_runs_commands_loads_code_or_opens_files_is_not_named(here, name, arguments, trust):
    text = refusal(f"data: {{benchmark: {{class_path: {name}, init_args: {arguments}}}}}", trust=trust)
    assert text.startswith("hostile.yaml: data.benchmark") and (
        "not for a configuration" in text or "leaves it" in text
    )


def test_modules_that_are_not_allowed_are_not_imported(here):
    ours = Trust(only_from=("bayesdual", "torch.nn"))
    foreign = "model: {network: {class_path: strangers.Network, init_args: {in_features: 64, out_features: 10}}}"
    text = refusal(foreign, trust=ours)
    assert "is strangers.Network, and --only-from bayesdual,torch.nn leaves it out: add its module" in text
    name = "model: {algorithm: {init_args: {selection: 'strangers.${data.evaluate_on}'}}}"
    assert "strangers.test" in refusal(name, trust=ours)
    assert "torch.optim" in refusal("model: {optimizer: {class_path: torch.optim.AdamW}}", trust=ours)
    with trusting(ours):
        assert resolve("tiny.yaml", Setting("model.network", "torch.nn.Identity"))
    with trusting(Trust(only_from=("bayesdual", "strangers", "torch"))):
        assert resolve("tiny.yaml", "hostile.yaml", Setting("model.optimizer", "torch.optim.AdamW"))
    Path("hostile.yaml").write_text(foreign)
    assert resolve("tiny.yaml", "hostile.yaml") and Path("imported").exists()


def test_a_run_of_a_strangers_is_served_without_calling_anything_but_networks(here):
    with pytest.raises(ValueError, match=r"os.system is no torch.nn.Module\): give load the network"):
        made({"class_path": "os.system", "init_args": {"command": "touch executed"}}, Path("last.ckpt"))
    nested = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "executed"]}}
    with pytest.raises(ValueError, match="subprocess.Popen is no torch.nn.Module"):
        made({"class_path": "torch.nn.Sequential", "init_args": {"x": nested}}, Path("last.ckpt"))
    with only_from(["torch.nn"]), pytest.raises(ValueError, match="strangers is not of torch.nn"):
        made({"class_path": "strangers.Network"}, Path("last.ckpt"))
    assert not Path("executed").exists() and not Path("imported").exists()
    with only_from(["bayesdual"]), pytest.raises(NotAllowed, match="contextlib is not of bayesdual"):
        named("bayesdual.files.contextmanager")
    with only_from(["torch.nn"]), pytest.raises(NotAllowed, match="torch.nnx is not of torch.nn"):
        named("torch.nnx.Linear")


@pytest.mark.parametrize("key", ["model", "data", "trainer"])
def test_settings_stand_in_no_other_file(here, key):
    Path("other.yaml").write_text("lr_end: 0.5")
    text = f"hostile.yaml: {key} is 'other.yaml': give its settings there, not another file."
    assert refusal(f"{key}: other.yaml") == text
    assert refused("fit", "--config", "tiny.yaml", "--config", "hostile.yaml") == text


def test_a_network_is_no_file_either(here):
    Path("other.yaml").write_text("{class_path: torch.nn.Identity}")
    assert "model.network" in refusal("model: {network: other.yaml}")


PLACES = (
    ("default_root_dir: {}", "trainer.default_root_dir"),
    ("logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: {}}}}}", "save_dir"),
    ("callbacks: [{{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {{dirpath: {}}}}}]", "dirpath"),
    ("profiler: {{class_path: lightning.pytorch.profilers.SimpleProfiler, init_args: {{dirpath: {}}}}}", "dirpath"),
)


@pytest.mark.parametrize(("text", "key"), PLACES)
def test_runs_of_a_comparison_write_nowhere_else(here, text, key):
    for place in ("/etc", "elsewhere"):
        sentence = refusal("trainer: {" + text.format(place) + "}")
        assert f"{key} is {place}, and nothing is to be written there" in sentence


def test_files_name_no_places_outside_of_the_run_directory(here):
    argv = ["fit", "--config", "tiny.yaml", "--config", "hostile.yaml", "--trainer.max_epochs", "0"]
    Path("hostile.yaml").write_text("trainer: {default_root_dir: runs/tiny-1/../../elsewhere}")
    assert "elsewhere in a configuration file, outside of runs" in refused(*argv)
    Path("hostile.yaml").write_text("trainer: {default_root_dir: runs/mine/x}")
    assert "max_epochs is 0" in refused(*argv, "--run_dir", "runs/mine", status=1)


def test_places_are_looked_at_as_they_are_resolved_and_the_command_line_may_name_any():
    config = {"trainer": {"logger": {"init_args": {"save_dir": "/etc", "version": "../x"}}}}
    key = "trainer.logger.init_args"
    with pytest.raises(CommandLineError, match="save_dir is /etc, and nothing is to be written there"):
        check_places(config, [Setting(f"{key}.save_dir", "${x}", "a.yaml")], None)
    with pytest.raises(CommandLineError, match=r"version is \.\./x"):
        check_places(config, [Setting(f"{key}.save_dir", "/etc")], None)
    check_places(config, [Setting("trainer.logger", {"class_path": "L", "init_args": {}})], None)
    with pytest.raises(CommandLineError, match="save_dir is /etc"):  # a name alone says nothing of places
        check_places(config, [Setting("trainer.logger", "L")], None)


def test_a_file_names_no_run_directory_elsewhere(here):
    for folder in ("/etc/run", "../run", "runs/../../run", "s3://bucket/run"):
        with pytest.raises(CommandLineError, match=f"run_dir is {folder}, outside of the working directory: give it"):
            check_run_dir([Setting("run_dir", folder, "hostile.yaml")])
    Path("hostile.yaml").write_text("run_dir: ../run")
    assert "run_dir is ../run, outside" in refused("fit", "--config", "tiny.yaml", "--config", "hostile.yaml")
    check_run_dir([Setting("run_dir", "/x", "hostile.yaml"), Setting("run_dir", "/x")])  # the last one counts
    check_run_dir([Setting("run_dir", "/some/run", "/some/run/config.yaml")])  # it lies there itself


def test_a_comparison_writes_where_it_is_called_from_or_where_the_command_line_says(here):
    text = "{folder: FOLDER, benchmarks: {one: tiny.yaml}, methods: {ours: {}, B: {baseline: os.system}}, MORE}"
    argv = ["compare", "--config", "hostile.yaml", "--dry_run"]
    Path("hostile.yaml").write_text(text.replace("FOLDER", "/etc/x").replace("MORE", "baselines: strangers"))
    assert refused(*argv).startswith("hostile.yaml: folder is /etc/x, outside of the working directory: give it as")
    argv += ["--folder", os.path.abspath("../x"), "--only-from", "bayesdual"]
    assert "strangers is not of bayesdual" in refused(*argv) and not Path("imported").exists()
    Path("hostile.yaml").write_text(
        text.replace("MORE", "baselines: bayesdual.strategies.baselines").replace("FOLDER", "x")
    )
    assert "methods.B.baseline is not allowed: os.system is not of bayesdual" in refused(*argv)
    check_inside("comparisons/x", "a.yaml: folder", "--folder x")
