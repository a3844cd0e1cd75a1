"""Examples taken out of a posterior without training again: is what is left that of a network that never saw them?"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from bayesdual.merging import remove
from bayesdual.posterior import Posterior, ggn_diagonal, kronecker_curvature

DELTA = 1.0  # precision of the prior: what keeps the weights finite
x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
x = (x / 16).float()
forget = torch.randperm(1400, generator=torch.Generator().manual_seed(0)) < 50  # of the first 1,400 digits
train, test = (x[:1400], y[:1400]), (x[1400:], y[1400:])


def trained(x, y):
    """A network at the minimum of the loss of all examples and the prior, always from the same start."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        prior = DELTA / 2 * sum(p.square().sum() for p in network.parameters())
        value = F.cross_entropy(network(x), y, reduction="sum") + prior
        value.backward()
        return value

    optimizer.step(loss)
    return network.eval()


network, without = trained(*train), trained(train[0][~forget], train[1][~forget])
ones = torch.ones(1400)
mean = {name: p.detach() for name, p in network.named_parameters()}
posterior = Posterior(mean, ggn_diagonal(network, train[0], ones), prior_precision=DELTA)
factors = kronecker_curvature(network, train[0], ones, generator=torch.Generator().manual_seed(0))
left = remove(posterior, network, train[0][forget], train[1][forget], factors)

with torch.no_grad():
    retrained = without(train[0][forget]).softmax(1)
    for name, weights in {"as it was": mean, "taken out": left.mean}.items():
        p = torch.func.functional_call(network, weights, (train[0][forget],)).softmax(1)
        print(f"{name}: {(p - retrained).abs().sum(1).mean() / 2:.4f} from the network that never saw them")
