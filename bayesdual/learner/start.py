"""What is looked at and arranged before anything is learned: the checkpoint, the stream and the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn

from bayesdual.files import is_damaged
from bayesdual.learner.datamodule import StreamDataModule
from bayesdual.learner.supported import save_at_epoch_ends


def check_saved(saved: Mapping[str, Any], trainer: Any, stream: StreamDataModule) -> None:
    """Looks at the checkpoint that a trainer begins from.

    Args:
        saved: What is in it.
        trainer: Lightning's.
        stream: What is learned, or evaluated on.

    Raises:
        ValueError: It is damaged, was not made by a ``Learner`` with such a stream, or cannot be gone on from.
    """
    path, name = trainer.ckpt_path, type(stream).__qualname__
    if path is not None and Path(path).is_file() and is_damaged(path):
        raise ValueError(f"the checkpoint {path} is damaged: give another one.")
    if "bayesdual" not in saved:
        raise ValueError("the checkpoint was not made by bayesdual: give one from the checkpoints/ of a run.")
    if name not in saved:
        raise ValueError(f"the checkpoint holds nothing of a {name}: give the datamodule that it was made with.")
    if trainer.state.fn == TrainerFn.FITTING:
        _refuse_other_kinds(saved.get("loops"), {"fit_loop": trainer.fit_loop.state_dict()}, "loops")
        _refuse_other_kinds(dict(saved), {"lr_schedulers": [], "callbacks": {}, "optimizer_states": []}, "it")
    state = saved["bayesdual"]
    if not isinstance(state, dict):
        raise ValueError(f"the checkpoint is damaged: bayesdual is {type(state).__name__}; give another one.")
    if state.get("within_epoch", False) is not True or trainer.state.fn != TrainerFn.FITTING:
        return
    if not isinstance(state.get("batches"), int):
        raise ValueError(
            "the checkpoint was written in the middle of a step or after the last batch of an epoch, which a stream "
            "cannot go on from: give one that StreamCheckpoint wrote (last.ckpt, experience_K.ckpt)."
        )
    if state["batch"] != (batch := stream.examples_of_a_batch):
        raise ValueError(
            f"the checkpoint was written in the middle of an epoch with {state['batch']} new examples in a batch, all "
            f"processes together, and there are {batch} now: give as many, or a checkpoint of the end of an epoch."
        )


def _refuse_other_kinds(saved: Any, like: Any, place: str) -> None:
    """Refuses what Lightning would stumble over: values of another type than it writes.

    Raises:
        ValueError: There is one; the sentence says where.
    """
    if type(saved) is not type(like):
        raise ValueError(
            f"the checkpoint is damaged: {place} is {type(saved).__name__} where Lightning has {type(like).__name__}; "
            "give another one."
        )
    for key in like if isinstance(like, dict) else ():
        if key not in ("state_dict", "combined_loader"):  # which not all of them have
            _refuse_other_kinds(saved.get(key), like[key], f"{place}.{key}")


def check_shared(stream: StreamDataModule, ranks: int) -> None:
    """Sees that processes can share out a batch.

    Raises:
        ValueError: They would have parts of several sizes.
    """
    if stream.examples_of_a_batch % ranks:
        raise ValueError(
            f"data.batch_size is {stream.batch_size}, which {ranks} processes cannot share out evenly: give a multiple "
            "of their number, or data.batch_size_of each."
        )


def take_place(stream: StreamDataModule, learned: StreamDataModule | None) -> None:
    """Has a stream begin at its first experience, or come after what a learner has learned.

    Args:
        stream: What is to be learned.
        learned: The stream that the learner learned last, if it learned any.

    Raises:
        ValueError: What is to be learned is not what comes next.
    """
    if learned is not None and learned is not stream:
        if not learned.finished:
            raise ValueError(
                f"this Learner is in the middle of another stream, in experience {learned.experience + 1} of "
                f"{learned.n_experiences}: finish that first."
            )
        stream.follow(learned)
    elif stream.finished:
        if learned is stream:
            raise ValueError(
                "this Learner has learned this StreamDataModule to its end: make one of what comes next, or a new "
                "Learner."
            )
        stream.restart()
    done = 0 if learned is None else learned.experience
    if stream.experience != done:
        raise ValueError(
            f"this Learner has learned {done} experiences and the StreamDataModule stands at experience "
            f"{stream.experience + 1}: make new ones, or resume from a checkpoint."
        )


def arrange(trainer: Any, stream: StreamDataModule, counted: int) -> None:
    """Makes one ``fit`` of the trainer cover the stream.

    Args:
        trainer: Lightning's, which sets most of these attributes in ways that type checkers do not see.
        stream: What is learned.
        counted: Epochs that the trainer has counted, those of streams before included, in the checkpoint that is gone
            on from.

    Raises:
        ValueError: The trainer is to stop before the first epoch.
    """
    wanted = trainer.fit_loop.max_epochs
    save_at_epoch_ends(trainer)
    if wanted == 0:
        raise ValueError("trainer.max_epochs is 0: leave it out to learn the whole stream, or give at least 1.")
    total = counted + stream.epochs_to_go
    before = max(0, counted - stream.epochs_done)
    trainer.fit_loop.max_epochs = total if wanted in (None, -1) else min(before + wanted, total)
    trainer.reload_dataloaders_every_n_epochs = 1  # each epoch's loader is built from the stream's state
    trainer.num_sanity_val_steps = float("inf")  # evaluates the untrained network, for forward transfer


def check_labels(stream: StreamDataModule, n_logits: int) -> None:
    """Sees that there is something to learn from and to evaluate on in every experience, with labels that can be.

    Args:
        stream: What is to be learned.
        n_logits: How many classes the network tells apart.

    Raises:
        ValueError: An experience is empty, is evaluated nowhere, or has a label that is not in 0..n_logits - 1.
    """
    own, evaluated = stream.own_description(), stream.evaluation_data(stream.evaluate_on)
    for number, (size, classes) in enumerate(zip(own["sizes"], own["classes"], strict=True), start=1):
        name = f"experience {number} of data.benchmark"
        if size == 0:
            raise ValueError(f"{name} has no training examples: leave it out.")
        if classes and min(classes) < 0:
            raise ValueError(f"{name} has the label {min(classes)}: labels are 0, 1, and so on.")
    if len(evaluated) not in (1, len(own["sizes"])):
        raise ValueError(
            f"data.benchmark has {len(own['sizes'])} experiences to learn and {len(evaluated)} in the stream "
            f"{stream.evaluate_on!r}: give as many, to evaluate each, or one that is common to all."
        )
    for number, data in enumerate(evaluated, start=1):
        name = f"experience {number} of the stream {stream.evaluate_on!r} of data.benchmark"
        if len(data) == 0:
            raise ValueError(f"{name} has no examples: give it some to evaluate on.")
        low, high = int(data.y.min()), int(data.y.max())
        if stream.likelihood.is_softmax and (low < 0 or high >= n_logits):
            raise ValueError(
                f"{name} has the label {low if low < 0 else high}, but model.network tells the classes 0 to "
                f"{n_logits - 1} apart."
            )
