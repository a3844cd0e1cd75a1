"""Sets that cover: a target with two modes, by regression as classification and by intervals between quantiles."""

import numpy as np

from bayesdual.conformal import ConformalRegressor, covered, lengths


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples whose target is on one of two branches."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 4, n)
    return x[:, None], rng.choice([-1, 1], n) * (1 + 0.5 * x) + 0.2 * rng.normal(size=n)


X, y = draw(600, seed=0)
X_test, y_test = draw(1000, seed=1)

for method in ("best", "cqr"):
    regressor = ConformalRegressor(method, epochs=40, random_state=0).fit(X, y)
    sets = regressor.predict_set(X_test, alpha=0.1)
    first = " and ".join(f"[{low:.2f}, {high:.2f}]" for low, high in sets[0])
    print(
        f"{method} ({regressor.method_}): {np.mean(covered(sets, y_test)):.3f} of targets are in their sets,", end=" "
    )
    print(f"whose mean length is {np.mean(lengths(sets)):.2f}; the first is {first}")
