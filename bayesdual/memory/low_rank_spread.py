"""The spread around vectors of features in few bytes: a covariance of low rank, and a variance for each number.

    R = (B^T B + diag(v)) / sum_i w_i     ~     sum_z sum_{i in Z} w_i (x_i - x_z) (x_i - x_z)^T / sum_i w_i

B has the leading directions of the sum, a row each, times the roots of their eigenvalues, in four bits a number; v is
what is left of its diagonal, what coding loses of B included, in bfloat16. What was lost in further merging is added to
the sum, and the leading directions are found anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayesdual.memory.levels import BITS, bytes_of_vectors, decode_vectors, encode_vectors

AT_ONCE = 600  # rows that are taken in together


class LowRankSpread:
    """What memory vectors lose of the inputs that they stand for, of all together.

    Args:
        rank: Number of rows of B, at least 0.
        bits: Of a number of B.
    """

    def __init__(self, rank: int, bits: int = BITS) -> None:
        self.rank = rank
        self.bits = bits
        self._directions: Tensor | None = None  # B
        self._rest: Tensor | None = None  # v
        self._waiting: list[Tensor] = []  # deviations that are not taken in yet

    def __bool__(self) -> bool:
        return self._rest is not None or bool(self._waiting)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        directions, rest = self.parts()
        return 2 * rest.numel() + (bytes_of_vectors(directions.shape, self.bits) if len(directions) else 0)

    def add(self, deviations: Tensor, generator: torch.Generator | None = None) -> None:
        """Takes in what was lost when vectors were made, merged or coded.

        Args:
            deviations: sqrt(w) (x - x_z), shape (n, D), floating.
            generator: Not needed.

        Raises:
            ValueError: Inputs were infinite or not numbers.
        """
        if not deviations.isfinite().all():
            raise ValueError("inputs of the memory are infinite or not numbers: look for them in the training data.")
        deviations = deviations.float()
        self._waiting.append(deviations[deviations.any(1)] if self else deviations)
        if sum(map(len, self._waiting)) > AT_ONCE:
            self._take_in()

    def parts(self) -> tuple[Tensor, Tensor]:
        """B, shape (rank, D) or less, and v, shape (D,).

        Raises:
            ValueError: There is no spread yet.
        """
        self._take_in()
        if self._directions is None or self._rest is None:
            raise ValueError("there is no spread before vectors have been made.")
        return self._directions, self._rest

    def through(self, weight: Tensor, examples: float) -> Tensor:
        """W R W^T, the covariance of what is linear in inputs.

        Args:
            weight: W, shape (C, D).
            examples: Number of past examples that R is the mean over.

        Returns:
            Shape (C, C).
        """
        directions, rest = self.parts()
        seen = weight @ directions.to(weight).T
        return (seen @ seen.T + (weight * rest.to(weight)) @ weight.T) / examples

    def around(self, x: Tensor, examples: float, scale: float, generator: torch.Generator) -> Tensor:
        """Inputs that vectors may stand for.

        Args:
            x: Memory vectors, shape (B, D), floating.
            examples: Number of past examples that R is the mean over.
            scale: s, of the noise.
            generator: Source of randomness, on the CPU.

        Returns:
            Inputs of the shape and type of ``x``.
        """
        if not self:
            return x
        directions, rest = (part.to(x.device) for part in self.parts())
        leading = torch.randn(len(x), len(directions), generator=generator).to(directions) @ directions
        noise = leading + torch.randn(x.shape, generator=generator).to(rest) * rest.sqrt()
        return (x + noise * (scale * examples**-0.5)).to(x.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Tensors."""
        rank = torch.tensor(self.rank)
        if not self:
            return {"rank": rank}
        directions, rest = self.parts()
        code = torch.frombuffer(bytearray(encode_vectors(directions, self.bits)), dtype=torch.uint8)
        return {"rank": rank, "directions": code, "rest": rest.to(torch.bfloat16)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        self.rank, self._waiting = int(state["rank"]), []
        code, rest = state.get("directions"), state.get("rest")
        self._directions = None if code is None else decode_vectors(code.cpu().numpy().tobytes())
        self._rest = None if rest is None else rest.float()

    def _take_in(self) -> None:
        if not self._waiting:
            return
        new = torch.cat(self._waiting)
        self._waiting = []
        rest = torch.zeros_like(new[0]) if self._rest is None else self._rest.to(new)
        rows = new if self._directions is None else torch.cat([self._directions.to(new), new])
        kept = decode_vectors(encode_vectors(leading(rows, self.rank), self.bits)).to(rows)
        rest = rest + (rows.square().sum(0) - kept.square().sum(0)).clamp_min(0)
        self._directions, self._rest = kept, rest.to(torch.bfloat16).float()  # as they are kept


def leading(rows: Tensor, rank: int) -> Tensor:
    """The rows B (rank, D), or fewer, with B^T B nearest to that of ``rows`` (n, D).

    With A = U S V^T, B = U^T A = S V^T of the largest S; U are the eigenvectors of A A^T, or, where A has more rows
    than columns, S V^T follows from A^T A.
    """
    n, d = rows.shape
    rank = min(rank, n, d)
    if n <= d:
        vectors = torch.linalg.eigh(rows @ rows.T).eigenvectors[:, n - rank :]
        return vectors.T @ rows
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    return values[d - rank :, None].clamp_min(0).sqrt() * vectors[:, d - rank :].T
