"""The mutants: small errors in the method, each with the test that must notice it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """An error put into the package.

    Attributes:
        name: What is wrong, in a few words.
        file: Where, from the root of the repository.
        snippet: Text that stands there once.
        replacement: What stands there instead.
        test: The test that must fail, by file or node id.
    """

    name: str
    file: str
    snippet: str
    replacement: str
    test: str


def mutants(file: str, test: str, *changes: tuple[str, str, str]) -> tuple[Mutant, ...]:
    """Mutants of one file that one test must notice: name, snippet and replacement of each."""
    return tuple(Mutant(name, file, snippet, replacement, test) for name, snippet, replacement in changes)


MUTANTS: tuple[Mutant, ...] = (
    *mutants(
        "bayesdual/ivon/equations.py",
        "tests/ivon/test_optimizer.py::test_equals_ivon_opt_with_the_same_draws",
        ("IVON: betas swapped", "b1, b2 = betas", "b2, b1 = betas"),
        (
            "IVON: half dropped from the square in the Hessian line",
            "e.addcmul_(e, e, value=0.5 * rate)",
            "e.addcmul_(e, e, value=rate)",
        ),
        ("IVON: the square dropped from the Hessian line", "e.addcmul_(e, e, value=0.5 * rate)", "pass"),
        ("IVON: Hessian line without weight decay", "torch.add(h, d, out=precision)", "precision.copy_(h)"),
        ("IVON: no weight decay of the mean", "foreach.addcdiv_(m, m, precision, value=-a * d)", "pass"),
        ("IVON: no weight decay of the mean where steps are clipped", "foreach.add_(direction, m, alpha=d)", "pass"),
        ("IVON: clip radius holds on one side only", "foreach.clamp_min_(direction, -xi)", "pass"),
    ),
    *mutants(
        "bayesdual/ivon/update.py",
        "tests/ivon/test_optimizer.py::test_equals_ivon_opt_with_the_same_draws",
        (
            "IVON: momentum not debiased",
            '[1 - b1**t if group["debias"] else 1.0 for t in steps]',
            "[1.0 for t in steps]",
        ),
        (
            "IVON: learning rate not rescaled",
            'scale = group["hess_init"] + d if group["rescale_lr"] else 1.0',
            "scale = 1.0",
        ),
        ("IVON: squared gradients not divided by h + d", "e.div_(torch.add(part.hess, d, out=precision))", "pass"),
    ),
    *mutants(
        "bayesdual/ivon/gradients.py",
        "tests/ivon/test_optimizer.py::test_equals_ivon_opt_with_the_same_draws",
        ("IVON: several samples are summed, and not averaged", "foreach.div_(pair, self.count)", "pass"),
    ),
    *mutants(
        "bayesdual/ivon/drawing.py",
        "tests/ivon/test_optimizer.py::test_samples_have_the_variance_of_the_posterior",
        (
            "IVON: samples without weight decay in their deviation",
            'torch.add(block.hess, block.group["weight_decay"], out=deviation).rsqrt_()',
            "deviation.copy_(block.hess).rsqrt_()",
        ),
    ),
    *mutants(
        "bayesdual/ivon/equations.py",
        "tests/ivon/test_optimizer.py::test_samples_have_the_variance_of_the_posterior",
        ("IVON: ess has no root in the deviation", "value=ess**-0.5", "value=1 / ess"),
    ),
    *mutants(
        "bayesdual/ivon/samples.py",
        "tests/ivon/test_optimizer.py::test_a_gradient_that_is_too_long_is_that_of_a_flatter_loss",
        ("IVON: max_norm ignored", "if length > max_norm or", "if"),
        (
            "IVON: max_norm shortens squared gradients as it does gradients",
            "by[p] ** 2 if self.squared else by[p]",
            "by[p]",
        ),
    ),
    *mutants(
        "bayesdual/ivon/checks.py",
        "tests/ivon/test_optimizer.py::test_max_rms_shortens_the_gradient_of_a_parameter_and_leaves_others_alone",
        ("IVON: max_rms bounds the length of a gradient", "max_rms * math.sqrt(p.numel())", "max_rms"),
        (
            "IVON: max_norm is of what max_rms has shortened before",
            "length = math.hypot(*(each[p] * x",
            "math.hypot(*(each[p] * x",
        ),
    ),
    *mutants(
        "bayesdual/ivon/optimizer.py",
        "tests/ivon/test_optimizer.py::test_resumes_to_the_bit",
        (
            "IVON: step count not saved",
            "ours_alone = {*COMMON",
            '[state.update(step=0) for state in state_dict["state"].values()]; ours_alone = {*COMMON',
        ),
        (
            "IVON: the same noise again after a checkpoint",
            'noise["seed"], noise["draws"], noise.get',
            'noise["seed"], 0, noise.get',
        ),
    ),
    *mutants(
        "bayesdual/ivon/keys.py",
        "tests/ivon/test_noise.py::test_samples_of_an_optimizer_differ_in_all_blocks_and_steps",
        ("IVON: the same noise in every step", "self.draws += world_size if independent else 1", "self.draws += 0"),
    ),
    *mutants(
        "bayesdual/ivon/states.py",
        "tests/posterior/test_gaussian.py::test_of_an_untrained_network_is_the_start",
        (
            "IVON: the posterior of a head that grew begins at 0",
            'state.get("hess")), group["hess_init"])',
            'state.get("hess")), 0.0)',
        ),
    ),
    *mutants(
        "bayesdual/ivon/states.py",
        "tests/posterior/test_gaussian.py::test_comes_from_an_optimizer",
        (
            "IVON: precision without weight decay",
            'group["ess"] * (hess + group["weight_decay"])',
            'group["ess"] * hess',
        ),
    ),
    *mutants(
        "bayesdual/ivon/keys.py",
        "tests/ivon/test_processes.py::test_two_processes_are_one",
        ("IVON: independent noise is the same in all processes", "(rank if independent else 0)", "0"),
    ),
    *mutants(
        "bayesdual/rounding.py",
        "tests/ivon/test_half.py::test_steps_below_the_spacing_of_numbers_accumulate",
        ("16 bits: the mean is what the parameter holds", "mean.to(p.dtype) == p, mean", "mean == p, mean"),
    ),
    *mutants(
        "bayesdual/ivon/drawing.py",
        "tests/ivon/test_half.py::test_what_a_sample_is_to_the_curvature_where_its_deviation_is_below_the_spacing",
        (
            "16 bits: eps is what rounding has made of it",
            "torch.sub(theta, block.mean,",
            "torch.sub(theta.bfloat16(), block.mean,",
        ),
    ),
    *mutants(
        "bayesdual/ivon/states.py",
        "tests/ivon/test_half.py::test_goes_on_to_the_bit",
        ("16 bits: the state is loaded as PyTorch rounds it", "if p.dtype in HALVES:", "if False:"),
    ),
    *mutants(
        "bayesdual/ivon/drawing.py",
        "tests/ivon/test_shards.py::test_two_processes_are_one",
        ("shards: each process draws its own noise", "if block.everywhere is None:", "if True:"),
    ),
    *mutants(
        "bayesdual/ivon/layout.py",
        "tests/ivon/test_shards.py::test_two_processes_are_one",
        ("shards: modules keep the parameters that they have gathered", "module.reshard()", "pass"),
    ),
    *mutants(
        "bayesdual/ivon/shards.py",
        "tests/ivon/test_shards.py::test_two_processes_are_one",
        ("shards: gradients are as long as the part here", "dist.all_reduce(square, group=group)", "pass"),
    ),
    *mutants(
        "bayesdual/ivon/rule.py",
        "tests/ivon/test_rule.py",
        ("rule: learning rate without a root", "math.sqrt(steps * scales.size)", "steps * scales.size"),
        (
            "rule: learning rate without its upper bound",
            "min(scales.reach / math.sqrt(steps * scales.size), scales.largest)",
            "scales.reach / math.sqrt(steps * scales.size)",
        ),
        (
            "rule: Hessian of all examples and not of one",
            "scales.size / (scales.share * examples)",
            "scales.size / scales.share",
        ),
        ("rule: convolutions at the whole rate", "CONVOLUTIONS = 0.5", "CONVOLUTIONS = 1.0"),
        ("rule: less noise is more", '["hess_init"] /= self.noise', '["hess_init"] *= self.noise'),
    ),
    *mutants(
        "bayesdual/ivon/suggest.py",
        "tests/ivon/test_suggest.py",
        ("suggest: parameters stay where the sweep has left them", "t.copy_(tensors[name])", "pass"),
        (
            "suggest: the noise of batches for that of examples",
            "trace = batch * max(spread, 0.0)",
            "trace = max(spread, 0.0)",
        ),
        ("suggest: the rate goes on rising with the length of training", "REACH * turn * math.sqrt(size)", "math.inf"),
    ),
    *mutants(
        "bayesdual/kprior/terms.py",
        "tests/kprior/test_terms.py",
        ("T^2 dropped from the function-space loss", "return temperature**2 * (losses", "return (losses"),
        ("function-space loss: weights ignored", "(losses * weights).sum() / weights.sum()", "losses.mean()"),
        ("weight-space loss: half dropped", "return 0.5 * total", "return total"),
    ),
    *mutants(
        "bayesdual/kprior/kronecker.py",
        "tests/kprior/test_kronecker.py",
        ("Kronecker prior: half dropped", '0.5 * (anchor["curvature"]', '1.0 * (anchor["curvature"]'),
        ("Kronecker prior: cap dropped", ".clamp(0, self.cap)", ".clamp_min(0)"),
        (
            "Kronecker prior: strength dropped",
            "self.strength * torch.outer(values_out, values_in)",
            "torch.outer(values_out, values_in)",
        ),
        (
            "Kronecker factors: no temperature",
            "drawn_factor(logits.detach() / temperature, generator)",
            "drawn_factor(logits.detach(), generator)",
        ),
        ("Kronecker factors: bias without its column of ones", "a.new_ones(len(a), 1)", "a.new_zeros(len(a), 1)"),
        (
            "Kronecker averaging: experiences count the same, however many examples they have",
            "share = n / (self._count + n)",
            "share = 0.5 if self._count else 1.0",
        ),
        (
            "Kronecker averaging: A is that of the last experience",
            '("inputs", n / self._counts[name])',
            '("inputs", 1.0)',
        ),
    ),
    *mutants(
        "bayesdual/kprior/kronecker.py",
        "tests/kprior/test_kronecker.py::test_leading_eigenvectors",
        (
            "eigenvectors: the smallest of small matrices",
            "return values[-rank:], vectors[:, -rank:]",
            "return values[:rank], vectors[:, :rank]",
        ),
        (
            "eigenvectors: not turned back out of the subspace in order",
            "return values[-rank:], basis @ inner[:, -rank:]",
            "return values[-rank:], basis[:, -rank:]",
        ),
    ),
    *mutants(
        "bayesdual/kprior/kronecker.py",
        "tests/kprior/test_kronecker.py",
        (
            "coordinates of the weights: bias left out",
            "return outputs.T @ weight @ inputs[:-1] + torch.outer(outputs.T @ bias, inputs[-1])",
            "return outputs.T @ weight @ inputs[:-1]",
        ),
    ),
    *mutants(
        "bayesdual/memory/selection.py",
        "tests/memory/test_selection.py",
        ("top_score: ascending", "argsort(descending=True, stable=True)", "argsort(stable=True)"),
    ),
    *mutants(
        "bayesdual/memory/clusters.py",
        "tests/memory/test_selection.py",
        (
            "herding: away from the mean",
            "(squares + 2 * (features @ gap) + free).argmin()",
            "(squares - 2 * (features @ gap) + free).argmin()",
        ),
    ),
    *mutants(
        "bayesdual/memory/selection.py",
        "tests/memory/test_selection.py",
        ("inclusion probabilities: may be above 1", "over = (p > 1 - 1e-6) & ~certain", "over = (p > 1e6) & ~certain"),
        (
            "score_sampling: weights are not the inverse probabilities",
            "return rows, 1 / inclusion[rows]",
            "return rows, torch.ones(len(rows))",
        ),
    ),
    *mutants(
        "bayesdual/memory/clusters.py",
        "tests/memory/test_selection.py",
        ("k-means: centres stay where they began", "for _ in range(K_MEANS_ROUNDS):", "for _ in range(0):"),
    ),
    *mutants(
        "bayesdual/memory/spread.py",
        "tests/memory/test_spread.py",
        ("spread: its scale ignored", "(scale * examples**-0.5)", "(examples**-0.5)"),
        ("spread: per example without a root", "(scale * examples**-0.5)", "(scale / examples)"),
        ("spread: noise of one sign", "(picked % 2 * 2 - 1)", "(picked % 2 * 2)"),
    ),
    *mutants(
        "bayesdual/memory/packing.py",
        "tests/memory/test_bytes.py",
        ("packing: tokens in the integers that they came in", "x.to(kind).contiguous()", "x.contiguous()"),
        ("packing: tokens stay narrow", ".to(_DTYPES[given])", ""),
        ("packing: the lowest token alone decides", "and high <= torch.iinfo(t).max", ""),
    ),
    *mutants(
        "bayesdual/prediction/weights.py",
        "tests/prediction/test_prediction.py::test_samples_of_weights_approach_the_mean_over_gaussian_logits",
        ("weight samples: the mean each time", "posterior.sample(generator).items()", "posterior.mean.items()"),
        ("weight samples: a sum", "Predicted(p.mean(0), ", "Predicted(p.sum(0), "),
    ),
    *mutants(
        "bayesdual/ivon/by_matrix.py",
        "tests/ivon/test_by_matrix.py",
        ("IVON by matrix: more steps are as long", "self.reach / math.sqrt(steps)", "self.reach"),
        ("IVON by matrix: ten times the noise", "SHARE = 0.05, 4.5", "SHARE = 0.05, 45.0"),
    ),
    *mutants(
        "bayesdual/ivon/by_matrix.py",
        "tests/lora/test_rule.py",
        ("IVON for LoRA: steps as long as gradients", "max_rms=MAX_RMS,", ""),
        ("IVON for LoRA: noise of every weight counts", "if p.requires_grad)", ")"),
    ),
    *mutants(
        "scenarios/texts.py",
        "tests/scenarios/test_texts.py::test_the_files_are_read_as_they_are",
        ("texts: validation texts are learned from", '("train", "test", "oos_test")', '("val", "test", "oos_test")'),
    ),
    *mutants(
        "bayesdual/memory/vectors.py",
        "tests/memory/test_vectors.py",
        (
            "cell means: what is left out is not weighted",
            "(weights.sum() * share).sqrt()[:, None]",
            "weights.sum().sqrt()",
        ),
        (
            "cell means: weights of the examples ignored",
            "index_add_(0, cell, flat * weights[:, None])",
            "index_add_(0, cell, flat)",
        ),
    ),
    *mutants(
        "bayesdual/memory/soft_labels.py",
        "tests/memory/test_spread.py",
        (
            "soft labels: logits of another temperature",
            "(temperature * likelihood.link(total / n))",
            "likelihood.link(total / n)",
        ),
    ),
    *mutants(
        "bayesdual/posterior/layer_rules.py",
        "tests/posterior/test_function_variance.py::test_any_convolution",
        (
            "convolution: the sum of squares in place of the square of the sum over positions",
            "factor = delta[rows, :, :, part].flatten(2, 3) @ met",
            "factor = (delta[rows, :, :, part].flatten(2, 3).square() @ met.square()).sqrt()",
        ),
    ),
    *mutants(
        "bayesdual/posterior/layer_rules.py",
        "tests/posterior/test_function_variance.py::test_equals_vmap_jacrev_without_fallback",
        (
            "bias ignored where a layer is applied once",
            "variance = delta.new_zeros(()) if bias is None else bias.view(groups, 1, outputs)",
            "variance = delta.new_zeros(())",
        ),
    ),
    *mutants(
        "bayesdual/posterior/layer_rules.py",
        "tests/posterior/test_function_variance.py::test_any_convolution",
        (
            "bias ignored where a layer is applied at several positions",
            "yield from _affine_pieces(delta.sum(-1).flatten(2), bias)",
            "yield from ()",
        ),
        (
            "convolution: dilation ignored",
            "input.unfold(axis, d * (k - 1) + 1, s)[..., ::d]",
            "input.unfold(axis, d * (k - 1) + 1, s)[..., :k]",
        ),
    ),
    *mutants(
        "bayesdual/posterior/layer_rules.py",
        "tests/posterior/test_function_variance.py::test_norms",
        (
            "group norm: its input is not normalised",
            'normalised = options["normalised"](input).unsqueeze(-1).flatten(2)',
            "normalised = input.unsqueeze(-1).flatten(2)",
        ),
        (
            "layer norm: squares summed over positions",
            "yield from _affine_pieces((delta * normalised).sum(2), weight.flatten())",
            "yield from _affine_pieces((delta * normalised).square().sum(2).sqrt(), weight.flatten())",
        ),
    ),
    *mutants(
        "bayesdual/posterior/layer_rules.py",
        "tests/posterior/test_function_variance.py::test_equals_vmap_jacrev_without_fallback",
        (
            "embedding: a token that comes twice counts twice",
            "counted = ~same.tril(-1).any(-1)",
            "counted = same.any(-1)",
        ),
    ),
    *mutants(
        "bayesdual/posterior/sensitivity.py",
        "tests/posterior/test_sensitivity.py",
        (
            "residual: sign",
            "return probabilities - F.one_hot(y, probabilities.shape[1])",
            "return F.one_hot(y, probabilities.shape[1]) - probabilities",
        ),
        ("leverage: without lambda", "return (curvature(probabilities) * variance).sum(1)", "return variance.sum(1)"),
        (
            "memory perturbation: without lambda",
            "(residual(probabilities, y) * curvature(probabilities) * variance)",
            "(residual(probabilities, y) * variance)",
        ),
        ("leave-one-out: sign", "return logits + variance * residual", "return logits - variance * residual"),
    ),
    *mutants(
        "bayesdual/posterior/last_layer.py",
        "tests/posterior/test_sensitivity.py",
        (
            "variance of the last layer: bias ignored",
            "return variance if bias_variance is None else variance + bias_variance",
            "return variance",
        ),
    ),
    *mutants(
        "bayesdual/posterior/gaussian.py",
        "tests/posterior/test_gaussian.py::test_samples_have_its_mean_and_variance",
        (
            "samples of the posterior: variance as deviation",
            "noise * self.precision[name].rsqrt()",
            "noise * self.precision[name].reciprocal()",
        ),
    ),
    *mutants(
        "bayesdual/posterior/gaussian.py",
        "tests/posterior/test_gaussian.py::test_comes_from_a_checkpoint",
        (
            "posterior of a checkpoint: without weight decay",
            'group_of[i]["ess"] * (hess + group_of[i]["weight_decay"])',
            'group_of[i]["ess"] * hess',
        ),
    ),
    *mutants(
        "bayesdual/measures/continual.py",
        "tests/measures/test_measures.py",
        (
            "forgetting: from what was just learned, and not from the best",
            "best(accuracy[:last], j) - accuracy",
            "accuracy[j][j] - accuracy",
        ),
        ("backward transfer: sign", "accuracy[last][j] - accuracy[j][j]", "accuracy[j][j] - accuracy[last][j]"),
        ("forward transfer: without the untrained network", "accuracy[j - 1][j] - untrained[j]", "accuracy[j - 1][j]"),
        (
            "forward transfer: after the experience was learned",
            "accuracy[j - 1][j] - untrained[j]",
            "accuracy[j][j] - untrained[j]",
        ),
        ("accuracy of what was seen: of all", "accuracy[-1][: len(accuracy)]", "accuracy[-1]"),
    ),
    *mutants(
        "bayesdual/measures/calibration.py",
        "tests/measures/test_measures.py",
        ("ECE: 10 bins", "CALIBRATION_BINS = 15", "CALIBRATION_BINS = 10"),
        ("ECE: differences of bins cancel", "gaps.abs().sum()", "gaps.sum().abs()"),
    ),
    *mutants(
        "bayesdual/measures/answers.py",
        "tests/measures/test_measures.py",
        ("NLL: of what is predicted", "-p.gather(1, y[:, None])", "-p.max(1, keepdim=True).values"),
        ("NLL: a sum", "float(a.nll.mean())", "float(a.nll.sum())"),
    ),
    *mutants(
        "bayesdual/measures/answers.py",
        "tests/measures/test_answers.py",
        ("aleatoric entropy: all of it", "float((a.entropy - a.epistemic).mean())", "float(a.entropy.mean())"),
        (
            "unfamiliar: by the confidence",
            "(1 - known.confidence, 1 - other.confidence)",
            "(known.confidence, other.confidence)",
        ),
    ),
    *mutants(
        "bayesdual/measures/stream_metric.py",
        "tests/measures/test_answers.py",
        ("stream metric: other data count to the stream", "measured(kept.where(place < n))", "measured(kept)"),
        ("stream metric: what is new is old, too", '"old": place < last', '"old": place <= last'),
        ("stream metric: what is new is unseen, too", "(place > last) & (place < n)", "(place >= last) & (place < n)"),
    ),
    *mutants(
        "bayesdual/prediction/linearised.py",
        "tests/prediction/test_prediction.py",
        (
            "linearised: the noise of the data is the weights'",
            "(drawn.softmax(2)).epistemic",
            "(drawn.softmax(2)).aleatoric",
        ),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_answers.py",
        (
            "evaluation: what was learned is asked of the data",
            "max(stream.experience, len(self.history.accuracy)) - 1",
            "stream.experience - 1",
        ),
    ),
    *mutants(
        "bayesdual/stream/loaders.py",
        "tests/learner/test_learner.py::test_all_ranks_have_as_many_batches_however_few_examples_there_are",
        (
            "shards: not filled up to the same number of examples",
            "as_many_each = torch.arange(-(-n // ranks) * ranks) % max(1, n)",
            "as_many_each = torch.arange(n)",
        ),
        (
            "shards: all ranks have the same examples",
            "rows[as_many_each][rank::ranks]",
            "rows[as_many_each][0::ranks]",
        ),
    ),
    *mutants(
        "bayesdual/stream/loaders.py",
        "tests/stream/test_loaders.py",
        (
            "loaders: the order is drawn again each time",
            "torch.randperm(n, generator=torch.Generator().manual_seed(seed))",
            "torch.randperm(n)",
        ),
        ("loaders: inputs that are not finite pass", "refuse_not_finite(x, rows, data.name, data.parts)", "pass"),
        ("loaders: labels other than the targets' pass", "if not torch.equal(y, data.y[rows]):", "if False:"),
    ),
    *mutants(
        "bayesdual/learner/supported.py",
        "tests/learner/test_supported.py",
        (
            "supported: Lightning saves before the accuracies are noted",
            "callback._save_on_train_epoch_end = True",
            "pass",
        ),
        ("supported: a compiled network passes", "compiled or learner._compiler_ctx", "learner._compiler_ctx"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_supported.py",
        ("a checkpoint of the last batch of an epoch is gone on from", "self._within_epoch = True", "pass"),
    ),
    *mutants(
        "bayesdual/learner/position.py",
        "tests/learner/test_within_epochs.py::test_a_run_stopped_after_any_step_resumes_to_the_bit[tensors-mlp]",
        (
            "within epochs: the learning rate starts anew",
            "(stream.batch + batch) / (stream.batch + trainer.num_training_batches)",
            "batch / trainer.num_training_batches",
        ),
        ("within epochs: Lightning's count of steps is one behind", '"_batches_that_stepped"] += 1', '"nothing"] = 1'),
        ("within epochs: the epoch counts twice", 'progress["ready"] = progress["started"] =', 'progress["ready"] ='),
    ),
    *mutants(
        "bayesdual/learner/position.py",
        "tests/learner/test_within_epochs.py::test_two_processes_resume_to_the_bit_each_with_its_own_generators",
        ("within epochs: all processes draw as the first", "states[rank % len(states)]", "states[0]"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_within_epochs.py",
        ("within epochs: the epoch begins again", 'stream.batch = state.get("batches") or 0', "stream.batch = 0"),
        (
            "within epochs: what is broken is saved",
            "self._check_loss()  # else a checkpoint",
            "pass  # else a checkpoint",
        ),
    ),
    *mutants(
        "bayesdual/stream/loaders.py",
        "tests/learner/test_processes.py",
        ("processes: what goes twice counts twice", "ranks) < n).double()", "ranks) < 2 * n).double()"),
        ("processes: what a process lacks is not made up for", "* (ranks / n)", "/ -(-n // ranks)"),
    ),
    *mutants(
        "bayesdual/files.py",
        "tests/learner/test_checkpoint.py",
        ("files: what a killed run left stays", "path.unlink(missing_ok=True)", "pass"),
    ),
    *mutants(
        "bayesdual/files.py",
        "tests/fuzz/test_fuzz.py",
        ("files: other content is a traceback", "except (TypeError, LookupError,", "except (ZeroDivisionError,"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_processes.py",
        ("processes: seeded anew, other than one", "set_random_state(self._random_state_before | pythons)", "pass"),
    ),
    *mutants(
        "bayesdual/algorithm.py",
        "tests/learner/test_processes.py",
        (
            "processes: each replays a batch of its own",
            "* self._batches // self._ranks)",
            "* self._ranks // self._ranks)",
        ),
    ),
    *mutants(
        "bayesdual/learner/datamodule.py",
        "tests/learner/test_processes.py",
        ("processes: each learns from a batch of its own", 'return 1 if self.batch_size_of == "all" else', "return"),
    ),
    *mutants(
        "bayesdual/learner/checkpoint.py",
        "tests/learner/test_within_epochs.py::test_a_run_that_is_told_to_end_loses_no_step",
        ("a run that is told to end loses the epoch", "trainer.received_sigterm or", "False or"),
    ),
    *mutants(
        "bayesdual/stream/loaders.py",
        "tests/learner/test_within_epochs.py::test_a_run_stopped_after_any_step_resumes_to_the_bit[workers-mlp]",
        ("augmentation depends on who reads", 'seed_cpu(int.from_bytes(digest, "little"))', "pass"),
    ),
    *mutants(
        "bayesdual/kprior/kronecker.py",
        "tests/kprior/test_kronecker.py",
        ("eigenvalues that are NaN are kept", "if not torch.isfinite(values).all():", "if False:"),
    ),
    *mutants(
        "bayesdual/stream/checks.py",
        "tests/stream/test_checks.py",
        ("labels: floats are cut", "tensor.is_floating_point() or tensor.is_complex()", "False"),
        ("labels: of the targets, before any transform", "number[key] for key in keys", "key for key in keys"),
        (
            "labels: looking at them draws",
            "with kept_random_state():  # augmentation may draw\n        of_views",
            "if True:\n        of_views",
        ),
        ("labels: learned otherwise than evaluated", "if not torch.equal(labels, of_views[0]):", "if False:"),
    ),
    *mutants(
        "bayesdual/algorithm.py",
        "tests/test_algorithm.py",
        (
            "a and b swapped",
            "self.label_share * labels + (1 - self.label_share) * soft",
            "(1 - self.label_share) * labels + self.label_share * soft",
        ),
        (
            "N / (N + N') replaced by a half",
            "return self._examples / (self._examples + self.memory.examples_seen)",
            "return 0.5 if self.memory.examples_seen else 1.0",
        ),
        (
            "N' of what is in memory, and not of what it stands for",
            "(self._examples + self.memory.examples_seen)",
            "(self._examples + len(self.memory))",
        ),
        ("prior of the weights left out", "past = past + held", "past = past + 0 * held"),
        (
            "temperature of the soft labels ignored",
            "z.weights, self.temperature, self.likelihood)",
            "z.weights, 1.0, self.likelihood)",
        ),
        (
            "scores without the posterior",
            "score_examples(module, predict, data, rows, self.posterior, device, self.likelihood)",
            "score_examples(module, predict, data, rows, None, device, self.likelihood)",
        ),
        (
            "soft labels not renewed",
            "self.memory.relabel(predict",
            "(lambda *_, **__: None)(predict",
        ),
        (
            "replayed examples have the labels of the batch",
            "self.criterion(logits[: len(y)], y, weights), logits[len(y) :], z)",
            "self.criterion(logits[-len(y) :], y, weights), logits[: -len(y)], z)",
        ),
        ("generator not saved", 'self._generator.set_state(state["generator"].cpu())', "pass"),
        ("memory not saved", 'self.memory.load_state_dict({**state["memory"], **beside})', "pass"),
    ),
    *mutants(
        "bayesdual/kprior/holding.py",
        "tests/learner/test_learner.py::test_a_run_stopped_at_any_epoch_end_resumes_to_the_bit[ivon-3]",
        ("prior of the weights not saved", 'self.prior.load_state_dict(state["weight_prior"])', "pass"),
    ),
    *mutants(
        "bayesdual/algorithm.py",
        "tests/memory/test_spread.py::test_every_process_replays_its_part_of_the_same_draw",
        (
            "all processes replay the same part",
            "torch.arange(self._rank, len(common), self._ranks",
            "torch.arange(0, len(common), self._ranks",
        ),
    ),
    *mutants(
        "bayesdual/memory/shares.py",
        "tests/memory/test_memory.py",
        (
            "quotas: what a class cannot fill is lost",
            "fair_shares([sums[c] for c in classes], budget)",
            "fair_shares([budget for c in classes], budget)",
        ),
        ("quotas: the first experience comes first", "key=lambda e: draw_order(c, e)", "key=lambda e: e"),
        ("fair shares: more than there is", "given = min(each, available[i] - shares[i])", "given = each"),
    ),
    *mutants(
        "bayesdual/memory/memory.py",
        "tests/memory/test_memory.py",
        ("trimming: the head goes", "kept[c, e] = group[:n]", "kept[c, e] = group[-n:]"),
        (
            "weights not renormalised",
            "weights=group.weights * (stands_for / group.weights.sum())",
            "weights=group.weights",
        ),
        (
            "weights of all exemplars of a class the same",
            "group.weights * (stands_for / group.weights.sum())",
            "torch.full_like(group.weights, stands_for / len(group))",
        ),
        (
            "weights: experiences that are not kept are forgotten",
            "stands_for = plan.counts[c, e] * (seen[c] / present[c])",
            "stands_for = plan.counts[c, e]",
        ),
        ("drawn exemplars keep their weights", "x=x, weights=torch.ones_like(drawn.weights)", "x=x"),
        ("examples not counted", "self._counts = plan.counts", "pass"),
    ),
    *mutants(
        "bayesdual/memory/sampling.py",
        "tests/memory/test_memory.py",
        (
            "systematic draw replaced by a uniform one",
            "return order[places[torch.randperm(n, generator=generator)]]",
            "return torch.randint(len(y), (n,), generator=generator)",
        ),
        (
            "systematic draw: exemplars of a class are not beside each other",
            "order = order[y[order].argsort(stable=True)]",
            "pass",
        ),
    ),
    *mutants(
        "bayesdual/memory/memory.py",
        "tests/memory/test_vectors.py",
        ("exemplars that make room are dropped, and not merged", "if 0 < stay < len(group):", "if False:"),
    ),
    *mutants(
        "bayesdual/memory/memory.py",
        "tests/memory/test_spread.py",
        ("spread not saved", 'self.spread.load_state_dict(state["spread"])', "pass"),
        ("replay without the spread", "if noise else drawn.x", "if False else drawn.x"),
    ),
    *mutants(
        "bayesdual/memory/vectors.py",
        "tests/test_algorithm.py",
        ("spread: of the candidates, and not of all examples", "examples / float(weights.sum())", "1.0"),
    ),
    *mutants(
        "bayesdual/memory/plan.py",
        "tests/strategies/test_online.py",
        (
            "room: the newest piece of a stream gets what the older ones should",
            "int((drawn >= first).sum())",
            "int((drawn < first).sum())",
        ),
    ),
    *mutants(
        "bayesdual/learner/datamodule.py",
        "tests/learner/test_learner.py::test_a_run_stopped_at_any_epoch_end_resumes_to_the_bit[ivon-3]",
        ("epoch not saved", 'self.epoch = state_dict["epoch"]', "self.epoch = 0"),
        ("experience not saved", 'self.experience = state_dict["experience"]', "self.experience = 0"),
        ("shuffle seed not saved", 'self._shuffle_seed = state_dict["shuffle_seed"]', "pass"),
    ),
    *mutants(
        "bayesdual/learner/datamodule.py",
        "tests/learner/test_datamodule.py",
        ("the same order in every epoch", "+ self.experience * self.epochs + self.epoch)", "+ self.experience)"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_learner.py::test_a_run_stopped_at_any_epoch_end_resumes_to_the_bit[ivon-3]",
        ("memory and prior not saved", 'self.algorithm.load_state_dict(state["algorithm"])', "pass"),
        ("accuracies not saved", 'self.history.load_state_dict(state["history"])', "pass"),
        ("state of the random generators not saved", 'self._random_state = state["random_state"]', "pass"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_learner.py::test_the_learning_rate_falls_within_each_experience_to_a_share_of_what_it_was",
        (
            "lr_end ignored",
            "lower_learning_rate(self._optimizer(), self.lr_end, done)",
            "lower_learning_rate(self._optimizer(), 0.0, done)",
        ),
        (
            "learning rate falls within each epoch",
            "(self.stream.epoch + share_done(self.trainer, self.stream, batch_idx)) / self.stream.epochs",
            "batch_idx / self.trainer.num_training_batches",
        ),
    ),
    *mutants(
        "strategies/plugin.py",
        "tests/strategies/test_strategy.py::test_the_learning_rate_falls_within_each_experience",
        (
            "lr_end ignored in Avalanche",
            "lower_learning_rate(strategy.optimizer, self.lr_end, done)",
            "lower_learning_rate(strategy.optimizer, 0.0, done)",
        ),
    ),
    *mutants(
        "strategies/checkpoint.py",
        "tests/strategies/test_checkpoint.py::test_a_resumed_run_is_the_run_that_was_not_stopped[one head-ivon-1]",
        ("memory of an Avalanche strategy not saved", "plugin.load_state_dict(saved)", "pass"),
        ("random generators of an Avalanche strategy not saved", 'set_random_state(state["random_state"])', "pass"),
    ),
    *mutants(
        "bayesdual/posterior/ggn.py",
        "tests/posterior/test_ggn.py",
        (
            "GGN: weights of the examples ignored",
            "(weights.to(lengths)[:, None] * lengths)",
            "lengths",
        ),
    ),
    *mutants(
        "bayesdual/comparison/statistics.py",
        "tests/comparison/test_statistics.py",
        (
            "gap closure: in shares of the upper bound",
            "(ours - theirs) / (upper - theirs) if",
            "(ours - theirs) / upper if",
        ),
        ("gap closure: against the worst baseline", "best = max(baselines,", "best = min(baselines,"),
        (
            "sign-flip test: one-sided",
            "min(1.0, 2 * as_large / 2 ** len(differences))",
            "min(1.0, as_large / 2 ** len(differences))",
        ),
        (
            "sign-flip test: ties do not count",
            "- ROUNDING * math.fsum(map(abs, differences))",
            "+ ROUNDING * math.fsum(map(abs, differences))",
        ),
        (
            "differences of different seeds",
            "(other := best.results.get(seed))",
            "(other := next(iter(best.results.values())))",
        ),
        (
            "time of the evaluation counts",
            'results["seconds_total"] - results["seconds_evaluation"]',
            'results["seconds_total"]',
        ),
    ),
    *mutants(
        "bayesdual/comparison/cells.py",
        "tests/comparison/test_command.py::test_the_best_on_validation_is_chosen_and_what_diverges_loses",
        ("tuning: the worst is chosen", "return max(results, key=worth)[0]", "return min(results, key=worth)[0]"),
        ("tuning: what diverged does not lose", 'if all(runs) else float("-inf")', 'if any(runs) else float("-inf")'),
        (
            "edge of the grid: the smallest is none",
            "chosen[key] in (min(values), max(values))",
            "chosen[key] == max(values)",
        ),
    ),
    *mutants(
        "bayesdual/conformal/quantile.py",
        "tests/conformal/test_quantile.py",
        (
            "conformal: no finite-sample correction",
            "(1 - alpha) * (n + 1) - ROUNDING) - 1",
            "(1 - alpha) * n - ROUNDING) - 1",
        ),
        ("conformal: a rank by floating point", "(1 - alpha) * (n + 1) - ROUNDING) - 1", "(1 - alpha) * (n + 1)) - 1"),
        ("conformal: the new example has no weight", "* (1 + 1 / n)", "* 1"),
    ),
    *mutants(
        "bayesdual/conformal/sets.py",
        "tests/conformal/test_sets.py",
        (
            "conformal: heights at the threshold are left out",
            "above = heights >= threshold",
            "above = heights > threshold",
        ),
        (
            "conformal: crossings on the wrong side",
            "(threshold - left) / (right - left)",
            "(right - threshold) / (right - left)",
        ),
    ),
    *mutants(
        "bayesdual/conformal/bins.py",
        "tests/conformal/test_sets.py",
        (
            "conformal: what lies outside has the last bin's density",
            "torch.where(inside, ",
            "torch.where(inside | True, ",
        ),
    ),
    *mutants(
        "bayesdual/conformal/regression_as_classification.py",
        "tests/conformal/test_methods.py",
        ("conformal: the entropy's sign reversed", "- tau * entropy", "+ tau * entropy"),
        ("conformal: blurred labels as if bins were equal", " + widths(grid).log()", ""),
    ),
    *mutants(
        "bayesdual/conformal/stream.py",
        "tests/conformal/test_stream.py",
        (
            "conformal: one threshold for all experiences",
            "rows = z.experience == experience",
            "rows = z.experience >= 0",
        ),
        (
            "conformal: the first examples are kept, and no draw",
            "order = torch.randperm(len(data.y), generator=generator)",
            "order = torch.arange(len(data.y))",
        ),
    ),
    *mutants(
        "bayesdual/merging/gradient_matching.py",
        "tests/merging/test_merge.py",
        ("merging: alpha left out of Hbar", "total += block.alpha * diagonal_of(h)", "total += diagonal_of(h)"),
        ("merging: the base's curvature does not push", "(diagonal_of(h) + h0) * change", "diagonal_of(h) * change"),
        ("merging: factors, the base's do not push", "push = apply(shared, start) +", "push ="),
        ("merging: factors, no alpha in Hbar", "return alpha * apply(own, x) +", "return apply(own, x) +"),
        (
            "merging: nothing known is the base",
            "block.base + block.alpha * sum(block.changes,",
            "block.base + 0 * sum(block.changes,",
        ),
    ),
    *mutants(
        "bayesdual/posterior/evidence.py",
        "tests/posterior/test_evidence.py",
        ("evidence: weights without their length", "prior_precision * squared_length + ", "prior_precision + "),
        ("evidence: no determinant", "+ float(log_ratio))", ")"),
        ("evidence: gamma counts all weights", "values / (values + delta)", "(values + delta) / (values + delta)"),
        ("blocks by class: no prior", "self.eigenvalues + self.prior_precision", "self.eigenvalues"),
        ("blocks by class: curvature without 1 - p", "q * (1 - q)", "q"),
    ),
    *mutants(
        "bayesdual/merging/experts.py",
        "tests/merging/test_experts.py",
        ("experts: the next begins at what was merged", "module.load_state_dict(self.base)", "pass"),
        ("experts: what is carried is no copy", "value.detach().clone()", "value.detach()"),
        (
            "experts: the base's curvature is an expert's",
            '["base_curvature"] = known[0]',
            '["base_curvature"] = known[1]',
        ),
        ("experts: the base is no expert", "first = 0 if self.method in MEANS else 1", "first = 1"),
        ("experts: every head has all rows", "if not same:", "if False:"),
    ),
    *mutants(
        "bayesdual/merging/refit.py",
        "tests/merging/test_experts.py",
        ("refit: nothing holds the layer", "+ pull / 2 * moved", "+ 0 * moved"),
    ),
    *mutants(
        "bayesdual/learner/merging.py",
        "tests/learner/test_merging.py",
        ("merging in Lightning: an expert begins at what was merged", "self.experts.begin(pl_module.network)", "pass"),
        ("merging in Lightning: the optimizer goes on", "optimizer.state.clear()", "pass"),
        ("merging in Lightning: not without evaluation", "if pl_module.stream.last_epoch_of_experience:", "if False:"),
        ("merging in Lightning: evaluated before", "if trainer.state.fn == TrainerFn.FITTING and", "if False and"),
    ),
    *mutants(
        "bayesdual/merging/experts.py",
        "tests/strategies/test_merging.py",
        ("merging strategy: the model stays the expert", "module.load_state_dict(self.merged())", "pass"),
    ),
    *mutants(
        "bayesdual/strategies/merging.py",
        "tests/strategies/test_merging.py",
        ("merging strategy: the head is not fitted again", "refit_last_layer(model, *", "_ = (model, *"),
    ),
    *mutants(
        "bayesdual/merging/ties.py",
        "tests/merging/test_merge.py::test_simple_methods_are_their_equations",
        ("TIES: signs are not elected", "(change.sign() == elected) & (change != 0)", "change != 0"),
    ),
    *mutants(
        "bayesdual/merging/ties.py",
        "tests/merging/test_ties.py",
        ("TIES: digits of other numbers are counted, too", "== prefix]", ">= 0]"),
        ("TIES: numbers below the digit are not taken off", "k -= int(below[digit - 1]) if digit else 0", "pass"),
    ),
    *mutants(
        "bayesdual/merging/streaming.py",
        "tests/merging/test_ties.py",
        (
            "TIES: each part is trimmed by itself",
            "for part in _parts(entries, PART):",
            "for part in _parts(min(entries, PART), PART):",
        ),
    ),
    *mutants(
        "bayesdual/merging/regmean.py",
        "tests/merging/test_merge.py",
        ("RegMean: the average", "push += (model - target).double() @ a", "pass"),
        ("RegMean: whole from the base", "mean + block.alpha * torch", "mean + torch"),
    ),
    *mutants(
        "bayesdual/merging/statistics.py",
        "tests/merging/test_merge.py::test_statistics_of_batch_norms_are_those_of_all_data",
        ("statistics: variance about each mean", " - merged_mean(means, scales).square()", ""),
    ),
    *mutants(
        "bayesdual/merging/streaming.py",
        "tests/merging/test_merge.py",
        ("merging: negative curvature", "(value >= 0) & value.isfinite()", "value.isfinite()"),
        ("merging: s_0 left out", "factors(base, recipe.base_scale)", "factors(base, 1.0)"),
        ("merging: any base will do", "if 0 < FAR * apart < nearest", "if False"),
    ),
    *mutants(
        "bayesdual/merging/merge_files.py",
        "tests/merging/test_files.py",
        ("merge: any base will do", "distances.check()", "pass"),
        ("merge: what failed stays", "shutil.rmtree(place, ignore_errors=True)", "pass"),
        ("merge: the last prior precision", "return next((m.prior_precision", "return 7.0 or next((m.prior_precision"),
    ),
    *mutants(
        "bayesdual/merging/files.py",
        "tests/merging/test_files.py",
        ("merge: files stay mapped", "or self._read > REMAP", ""),
        ("merge: a shard of another folder", "Path(str(file)).name for file", "str(file) for file"),
    ),
    *mutants(
        "bayesdual/merging/remove.py",
        "tests/merging/test_remove.py",
        ("remove: away from the optimum", "mean[name] + step.reshape", "mean[name] - step.reshape"),
        ("remove: curvature stays", "(h - theirs[name]).clamp_min(0)", "h"),
    ),
    *mutants(
        "scenarios/cuts.py",
        "tests/scenarios/test_arrays.py",
        ("cuts: a test example is learned from", '"train": [rows[~is_test[rows]]', '"train": [rows'),
        ("cuts: groups are torn apart", "if examples.groups is not None:\n        rows", "if False:\n        rows"),
        (
            "cuts: the earliest are for testing",
            "rows[len(rows) - round(share * len(rows)) :]",
            "rows[: round(share * len(rows))]",
        ),
    ),
    *mutants(
        "bayesdual/sklearn.py",
        "tests/test_sklearn.py::test_each_partial_fit_is_an_experience_that_later_ones_do_not_wipe_out",
        (
            "sklearn: nothing is remembered",
            "algorithm.end_experience(network, predict, data, self.n_experiences_, posterior)",
            "pass",
        ),
    ),
    *mutants(
        "scenarios/scaling.py",
        "tests/scenarios/test_arrays.py",
        ("scaling: by all experiences", "mean, std = _moments(x[first])", "mean, std = _moments(x[learned])"),
        ("scaling: silence in the first experience", "silent = ~constant & (std", "silent = constant & (std"),
    ),
    *mutants(
        "scenarios/columns.py",
        "tests/scenarios/test_table.py",
        ("columns: what is missing is a category", "if any(map(is_missing, different)):", "if False:"),
        (
            "columns: text among numbers is a category",
            "bool(different) and all(as_number",
            "bool(different) and any(as_number",
        ),
    ),
    *mutants(
        "scenarios/folder.py",
        "tests/scenarios/test_folder.py",
        (
            "folder: lazy is not",
            "levels(pictures.stacked(first.tolist())",
            "levels(pictures.stacked(range(len(files)))[first]",
        ),
    ),
    *mutants(
        "bayesdual/posterior/kronecker.py",
        "tests/posterior/test_kronecker.py",
        ("Kronecker: positions add up in G", "@ delta.flatten(0, 1) / delta.shape[1]", "@ delta.flatten(0, 1)"),
        ("Kronecker: temperature left out", "torch.cat(logits) / temperature", "torch.cat(logits)"),
        ("Kronecker: examples count once", "met * weights[rows, None, None].to(met)", "met"),
    ),
    *mutants(
        "strategies/report.py",
        "tests/strategies/test_report.py",
        (
            "Avalanche report: the second evaluation counts, too",
            "self._learned <= len(self.history.accuracy) or not",
            "not",
        ),
        ("Avalanche report: another stream is recorded", "if e.origin_stream.name == self.stream]", "]"),
    ),
    *mutants(
        "bayesdual/memory/map.py",
        "tests/memory/test_map.py",
        ("map: residual is the label's probability", "residuals = 1 - likelihood", "residuals = likelihood"),
        (
            "map: kept of any experience",
            "for _, e, i in _keys(after) if e == experience",
            "for _, e, i in _keys(after)",
        ),
        ("map: came and went swapped", "[[c, came[c], went[c]]", "[[c, went[c], came[c]]"),
    ),
    *mutants(
        "bayesdual/inspection/memory_figures.py",
        "tests/inspection/test_figures.py",
        ("map: those kept are not all drawn", "wanted = mapped.kept.clone()", "wanted = torch.zeros_like(mapped.kept)"),
        (
            "memory figure: each class has a scale of its own",
            "mine.scores[column]) / highest",
            "mine.scores[column]) / float(mine.scores.max())",
        ),
    ),
    *mutants(
        "bayesdual/inspection/charts.py",
        "tests/inspection/test_charts.py",
        (
            "charts: cells transposed",
            '"after": i + 1, "experience": j + 1, "acc',
            '"after": j + 1, "experience": i + 1, "acc',
        ),
        ("charts: digits rounded away", '"lost": a} for j', '"lost": round(a, 9)} for j'),
        ("charts: bars cut off", '{"domain": [0, top]}', '{"domain": [0.1, top]}'),
    ),
    *mutants(
        "bayesdual/inspection/report.py",
        "tests/inspection/test_report.py::test_several_runs_stand_side_by_side_and_what_differs_is_marked",
        ("report: the worst is called the best", "max(known) if better == UP", "max(known) if better == DOWN"),
        ("report: differences from the run itself", "_number(value - first", "_number(first - value"),
    ),
    *mutants(
        "bayesdual/learner/history.py",
        "tests/inspection/test_board.py::test_every_tab_shows_each_experience",
        (
            "history: unseen experiences among those learned",
            "a in known.items() if j < len(matrix)",
            "a in known.items()",
        ),
    ),
    *mutants(
        "bayesdual/inspection/board.py",
        "tests/inspection/test_board.py",
        ("board: figures take any time", "if last or self._spent <= ", "if True or self._spent <= "),
        (
            "board: experiences counted from 0",
            "number = time.perf_counter(), len(learner.history.accuracy)",
            "number = time.perf_counter(), len(learner.history.accuracy) - 1",
        ),
        (
            "board: the last experience is not drawn",
            "self._write(trainer, shown_learner(pl_module), last=True)",
            "pass",
        ),
    ),
    *mutants(
        "bayesdual/measures/stream_metric.py",
        "tests/inspection/test_board.py::test_confusion_and_reliability_are_those_of_the_answers",
        (
            "confusion: rows and columns swapped",
            "known * probabilities.shape[1] + probabilities.argmax(1)",
            "known + probabilities.shape[1] * probabilities.argmax(1)",
        ),
        ("confusion: data of another kind are counted", "pair[place < n].long()", "pair.long()"),
    ),
    *mutants(
        "bayesdual/cli/fit.py",
        "tests/cli/test_fit.py::test_a_signal_keeps_the_last_checkpoint_and_the_run_goes_on",
        ("auto: always from the beginning", 'return "last" if any(', 'return "last" if not any('),
    ),
    *mutants(
        "bayesdual/learner/past.py",
        "tests/learner/test_more.py",
        ("more: inputs are not looked at", "for tensor in (data.y, data.inputs(rows)):", "for tensor in (data.y,):"),
        (
            "more: streams given are the oldest",
            "[None] * (len(past.streams) - len(earlier)) + [*earlier]",
            "[*earlier]",
        ),
    ),
    *mutants(
        "bayesdual/learner/datamodule.py",
        "tests/learner/test_more.py",
        ("more: another order of examples", "self._shuffle_seed = learned._shuffle_seed", "pass"),
        ("more: the past is forgotten", "self._past = past_of(theirs)\n            self.restart()", "self.restart()"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_more.py",
        ("more: a new optimizer", "carry_over(optimizer, self._optimizer_state)", "pass"),
    ),
    *mutants(
        "bayesdual/learner/fitting.py",
        "tests/learner/test_more.py",
        ("more: other inputs", "learned.inputs.refuse_others(inputs)", "pass"),
    ),
    *mutants(
        "bayesdual/learner/growth.py",
        "tests/learner/test_more.py",
        ("more: the mask of tasks forgets", "grow(known, known.new_empty(", "grow(None, known.new_empty("),
        ("more: an optimizer's state does not grow", 'if not hasattr(optimizer, "precision"):', "if False:"),
    ),
    *mutants(
        "bayesdual/models/heads.py",
        "tests/models/test_heads.py",
        ("more: a head that grows forgets", "corner(wider, old.shape).copy_(old)", "pass"),
    ),
    *mutants(
        "bayesdual/serving/to_files.py",
        "tests/serving/test_serving.py",
        ("export: not normalised", "if x.dtype == torch.uint8 and mean:", "if False:"),
    ),
    *mutants(
        "bayesdual/serving/from_run.py",
        "tests/serving/test_serving.py",
        ("serving: task labels do not mask", 'saved["state_dict"].get("task_mask")', "None"),
        ("serving: one posterior for all predictions", 'if by == "weight_samples":', "if False:"),
        ("serving: damage is not looked for", "and not is_damaged(checkpoint)", ""),
    ),
    *mutants(
        "bayesdual/algorithm.py",
        "tests/test_algorithm.py",
        (
            "equal: the past is drawn by class and counts as before",
            "past * self.memory.mean_weight(",
            "past * (lambda _: 1.0)(",
        ),
        ("equal: new examples count the same", "losses * self._class_weights[y]", "losses"),
    ),
    *mutants(
        "bayesdual/memory/memory.py",
        "tests/test_algorithm.py",
        ("equal: the past is drawn by example", "weights * of_class.cpu()[y]", "weights"),
    ),
    *mutants(
        "bayesdual/measures/two_samples.py",
        "tests/measures/test_two_samples.py",
        ("drift: the diagonal counts", "- n) / (n * (n - 1))", ") / (n * (n - 1))"),
        ("drift: no permutation of the sample", "torch.randperm(n + m, generator=generator)[:n]] = 1", ":n] = 1"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_drift.py",
        ("drift: compared with itself", "for data in (before, now))", "for data in (now, now))"),
    ),
    *mutants(
        "bayesdual/kprior/residual.py",
        "tests/kprior/test_residual.py",
        ("residual: the bound is twice as wide", "logits + 0.5 * (variances", "logits + 1.0 * (variances"),
        ("residual: half is missing", "return 0.5 * (self._spread", "return (self._spread"),
        (
            "residual: not anchored",
            "corner(head.weight, self._origin.shape) - self._origin.to(head.weight)",
            "head.weight",
        ),
        ("residual: curvature of sure vectors only", "q * share[:, None]).T @ q", "q * share[:, None]).T @ q * 0.5"),
    ),
    *mutants(
        "bayesdual/memory/low_rank_spread.py",
        "tests/memory/test_low_rank_spread.py",
        ("low-rank spread: what was lost before is forgotten", "rest = rest + (rows", "rest = (rows"),
        ("low-rank spread: the smallest directions", "vectors[:, d - rank :].T", "vectors[:, :rank].T"),
    ),
    *mutants(
        "bayesdual/memory/levels.py",
        "tests/memory/test_levels.py",
        ("levels: not in the middle of a step", "return (q + 0.5) * scale", "return q * scale"),
        ("levels: damage is not looked for", "or zlib.crc32(body) != checksum", ""),
    ),
    *mutants(
        "scenarios/features.py",
        "tests/scenarios/test_features.py",
        ("features: of a network in train mode", "with evaluating(network):", "if network.train():"),
        ("features: a backbone's attributes do not count", "if not key.startswith", "if False and not key.startswith"),
    ),
    *mutants(
        "bayesdual/algorithm.py",
        "tests/kprior/test_residual.py",
        (
            "features of another backbone are taken",
            "(new := _origin(data)) != self._origin",
            "(new := _origin(data)) == 0",
        ),
        ("linear networks replay noise", "self.spread if self.holding.residual is None else 0.0", "self.spread"),
    ),
    *mutants(
        "bayesdual/algorithm.py",
        "tests/likelihoods/test_likelihoods.py",
        (
            "likelihood: one output has the bound of the softmax",
            "if self.spread and self.likelihood.is_softmax:  # whose",
            "if self.spread:  #",
        ),
    ),
    *mutants(
        "bayesdual/likelihoods/categorical.py",
        "tests/likelihoods/test_likelihoods.py",
        (
            "soft loss: the new logits have no temperature",
            "F.log_softmax(f / temperature, dim=1)",
            "F.log_softmax(f, dim=1)",
        ),
        ("factors: no curvature between classes", "((k == c).float() - p[:, c])", "(k == c).float()"),
        ("factors: no length", "p * (1 - 2 * p + p.square().sum(1, keepdim=True)).clamp_min(0)", "p"),
    ),
    *mutants(
        "bayesdual/likelihoods/one_output.py",
        "tests/likelihoods/test_likelihoods.py",
        ("likelihood: soft targets of the network as it is", "self.mean(old / temperature)", "self.mean(f)"),
        ("likelihood: losses in their own unit", "return 4 * float(self.curvature(torch.zeros(1, 1)))", "return 1.0"),
    ),
    *mutants(
        "bayesdual/likelihoods/gaussian.py",
        "tests/likelihoods/test_likelihoods.py",
        (
            "likelihood: every experience gives the scale anew",
            "if self._scale is None:\n            spread",
            "if True:\n            spread",
        ),
        ("likelihood: the noise is that of the targets", "if not self._squares:", "if True:"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_numbers.py",
        (
            "likelihood: the noise is measured after the evaluation",
            "self.algorithm.measure_noise(self, self.stream.train_data(), self.stream.experience, self.device)",
            "pass",
        ),
    ),
    *mutants(
        "bayesdual/measures/continual.py",
        "tests/learner/test_numbers.py",
        ("likelihood: forgetting of an error is its fall", "[[-value for value in row] for row in matrix]", "matrix"),
    ),
    *mutants(
        "bayesdual/inspection/predictions.py",
        "tests/inspection/test_predictions.py",
        (
            "kept predictions: joined rank by rank",
            "joined[rank :: len(parts)] = part",
            "joined[rank : rank + len(part)] = part",
        ),
        ("kept predictions: of the sanity check, too", "if not trainer.sanity_checking and", "if"),
        ("kept predictions: rounded", '"predicted": predicted,', '"predicted": predicted.half().float(),'),
    ),
    *mutants(
        "bayesdual/inspection/gap.py",
        "tests/inspection/test_gap.py",
        ("stability gap: from the last value", "found[k] = mine[0] - min(mine)", "found[k] = mine[-1] - min(mine)"),
        (
            "stability gap: the new is evaluated, too",
            "[: stream.experience - first]",
            "[: stream.experience - first + 1]",
        ),
    ),
    *mutants(
        "bayesdual/inspection/verdict.py",
        "tests/inspection/test_verdict.py",
        ("verdict: classes that lost least", "key=lambda c: -gone[c]", "key=lambda c: gone[c]"),
        ("lost since: what was gained", "if before[j] > now[j]}", "if before[j] < now[j]}"),
    ),
    *mutants(
        "bayesdual/cli/inspect.py",
        "tests/inspection/test_watch.py",
        (
            "watch: the page goes on to reload",
            "    write(runs, output)\n    for run",
            "    write(runs, output, SECONDS)\n    for run",
        ),
        ("watch: written again and again", "!= shown:", "!= shown or True:"),
    ),
    *mutants(
        "bayesdual/configuration/trust.py",
        "tests/configuration/test_trust.py",
        ("trust: the environment is open", "if not _MAY_READ_ENV.get():", "if False:"),
        ("trust: what loads code may be named", "[*LOADS_CODE, *everything]", "everything or None"),
        ("trust: modules that are not allowed are imported", '["*"] if allowed else []', "[]"),
        ("trust: paths out of a folder by dots", 'or ".." in re.split', "or False and re.split"),
        ("trust: a flag's class lets all places pass", "and not isinstance(s.value, str)", ""),
    ),
    *mutants(
        "bayesdual/dotted.py",
        "tests/configuration/test_trust.py",
        ("trust: where a name is defined does not matter", "refuse_others(home)", "pass"),
        ("trust: names that begin alike are allowed", 'f"{name}.".startswith(f"{module}.")', "name.startswith(module)"),
    ),
    *mutants(
        "bayesdual/serving/from_run.py",
        "tests/configuration/test_trust.py",
        (
            "trust: a served run calls anything",
            "if not (isinstance(kind, type) and issubclass(kind, nn.Module)):",
            "if False:",
        ),
    ),
    *mutants(
        "bayesdual/agreement.py",
        "tests/test_agreement.py",
        ("agreement: types do not count", "{value.dtype} ", ""),
        (
            "agreement: the last process alone is looked at",
            "for rank, theirs in enumerate(everyones)",
            "for rank, theirs in []",
        ),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_processes.py",
        ("agreement: the start is not compared", "            check_start(self.stream)\n", "            pass\n"),
        (
            "agreement: what was learned is not compared",
            "check_learned(self.network, self.algorithm, self.posterior())",
            "pass",
        ),
    ),
    *mutants(
        "bayesdual/strategies/plugin.py",
        "tests/strategies/test_processes.py",
        (
            "agreement: Avalanche's processes each keep a memory of their own",
            "self.algorithm.load_state_dict(DistributedHelper.broadcast_object(self.algorithm.state_dict()))",
            "pass",
        ),
    ),
    *mutants(
        "bayesdual/learner/datamodule.py",
        "tests/learner/test_datamodule.py",
        ("evaluation: the last experience is like others", "and done < self.n_experiences", ""),
        ("evaluation: old ones after each", "done % self.evaluate_every", "False"),
    ),
    *mutants(
        "bayesdual/learner/checkpoint.py",
        "tests/learner/test_checkpoint.py",
        ("checkpoints: one more is kept", "<= newest - self.keep", "< newest - self.keep"),
        ("checkpoints: that of an experience comes last", "if stream.epoch > 0:", "if self._write(trainer, LAST):"),
    ),
    *mutants(
        "bayesdual/cli/stopping.py",
        "tests/cli/test_fit.py::test_a_command_that_is_told_to_end_before_it_has_begun_leaves_nothing",
        ("signals: SIGTERM ends nothing before a run has begun", "raise SystemExit(SIGTERM_STATUS)", "return"),
    ),
    *mutants(
        "bayesdual/memory/exemplars.py",
        "tests/memory/test_memory.py",
        ("memory: groups in no order", "of_kind.argsort(stable=True)", "of_kind.argsort(descending=True)"),
    ),
    *mutants(
        "bayesdual/stream/parts.py",
        "tests/stream/test_parts.py",
        ("parts: the last part is dropped", "for p in parts]", "for p in parts][:-1] + [parts[-1][:, :0]]"),
        ("parts: fractions are cut", "p.contiguous().view(BITS[p.element_size()])", "p"),
    ),
    *mutants(
        "bayesdual/prediction/logits.py",
        "tests/learner/test_parts.py",
        (
            "parts: by name or position, never",
            "return logits_of(network(*args, **kwargs))",
            "return network(x, **told)",
        ),
    ),
    *mutants(
        "bayesdual/stream/checks.py",
        "tests/stream/test_parts.py",
        (
            "parts: a look at a view draws",
            "with kept_random_state():  # augmentation may draw\n        first",
            "if True:\n        first",
        ),
    ),
    *mutants(
        "strategies/plugin.py",
        "tests/strategies/test_parts.py",
        (
            "parts: an object with logits is no output",
            "        strategy.mb_output = logits_of(strategy.mb_output)\n        _refuse",
            "        _refuse",
        ),
    ),
    *mutants(
        "strategies/plugin.py",
        "tests/strategies/test_drift.py",
        (
            "drift: compared with itself, in Avalanche",
            "for data in (before, self._data):",
            "for data in (self._data, self._data):",
        ),
    ),
    *mutants(
        "bayesdual/learner/datamodule.py",
        "tests/serving/test_serving.py::test_inputs_that_drift_are_told_from_those_that_were_learned",
        ("drift: what comes later is usual, too", "if k <= self.experience]", "]"),
    ),
    *mutants(
        "bayesdual/learner/learner.py",
        "tests/learner/test_common.py::test_a_common_test_is_evaluated_after_each_experience",
        ("common test: all of it is old", "None if stream.evaluated_in_common else learned", "learned"),
    ),
    *mutants(
        "bayesdual/learner/supported.py",
        "tests/learner/test_supported.py",
        ("supported: a part is evaluated for the whole", "or isinstance(value, int):", "and isinstance(value, int):"),
        ("supported: a monitor", "callback.monitor is not None:", "False:"),
    ),
)
