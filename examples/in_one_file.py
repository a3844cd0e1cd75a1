"""Split Digits, 5 experiences of 2 classes, a memory of 100: average accuracy .966 (seeds 0, 1, 2), as the package's.

A reader's edition of bayesdual: the whole method from its equations, in plain PyTorch, to be read from top to bottom.
It is made for this stream and this network; tests/examples/test_in_one_file.py compares each piece with the package's.

    python examples/in_one_file.py [--epochs 50] [--memory 100] [--seed 0]

A network learns classes 0 and 1, then 2 and 3, and so on; in the end it is to tell all ten apart. While it learns N new
examples, a memory of vectors z and a prior of the weights theta stand in for the N' past ones. The loss per example is

    loss = ( N  mean over a batch of CE(y, f)
           + N' [ 1/2 mean over a replayed batch of CE(y, f)                                  labels
                + 1/2 mean over a replayed batch of T^2 CE(softmax(f_old/T), softmax(f/T))    function space
                + 1/2 (theta - theta_old)^T P (theta - theta_old) ] ) / (N + N')              weight space
"""
# ruff: noqa: B905 (what is zipped here is of one length)

import argparse
import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

T = 3.0  # temperature of soft labels and curvature: at 1 nothing would hold down the logits of classes not seen yet
REPLAYED = 128  # memory vectors in each step
SPREAD = 0.6  # share of the spread around memory vectors that is replayed: with all of it, they are no digits any more
STRENGTH, CAP = 3.0, 5.0  # of the prior of the weights: its factor, and its greatest curvature in any direction


# -- the stream
def digits():
    """Images (N, 64), grey levels 0 to 255 as uint8, and labels (N,): for training, and a fifth of each for testing."""
    levels, y = map(torch.from_numpy, load_digits(return_X_y=True))
    x = (levels * (255 / 16)).round().to(torch.uint8)
    for_testing, generator = torch.zeros(len(y), dtype=torch.bool), torch.Generator().manual_seed(20)
    for c in range(10):
        rows = torch.nonzero(y == c).squeeze(1)
        for_testing[rows[torch.randperm(len(rows), generator=generator)[: round(0.2 * len(rows))]]] = True
    return x[~for_testing], y[~for_testing], x[for_testing], y[for_testing]


class MLP(torch.nn.Module):
    """64-256-256-10 with ReLU; keeps what goes into its layers and comes out, for features and curvature."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in ((64, 256), (256, 256), (256, 10)))

    def forward(self, x):
        a = (x.float() / 255 - 0.3056) / 0.3759  # mean and standard deviation of the training images
        self.inputs, self.outputs = [], []
        for layer in self.layers:
            self.inputs.append(a)
            self.outputs.append(layer(a))
            a = self.outputs[-1].relu()
        return self.outputs[-1]


# -- the optimizer
def settings_by_rule(parameters, examples, steps):
    """IVON's settings for experiences of so many examples and steps, over which the learning rate falls to 0."""
    lr = min(2400 / math.sqrt(steps * parameters), 0.75)
    return {"lr": lr, "ess": examples, "hess_init": parameters / (45 * examples), "max_norm": 3.0}


class IVON:
    """Learns the mean m and the Hessian h of a posterior N(m, 1 / (N (h + d))), with N = ess and d the weight decay.

    sample    theta = m + eps,  eps ~ N(0, 1 / (N (h + d))), one for the whole batch
    gradient  g at theta, shortened to max_norm
    Hessian   hhat = N (h + d) eps g,   h <- b2 h + (1 - b2) hhat + (1 - b2)^2 (h - hhat)^2 / (2 (h + d))
    mean      u <- b1 u + (1 - b1) g,   m <- m - lr (h0 + d) (u / (1 - b1^t) + d m) / (h + d)
    """

    def __init__(self, params, lr, ess, hess_init, max_norm, betas=(0.9, 0.9999), decay=1e-4):
        self.params, self.lr, self.ess, self.max_norm = list(params), lr, ess, max_norm
        self.hess_init, self.betas, self.decay = hess_init, betas, decay
        self.mean = [p.detach().clone() for p in self.params]
        self.hess = [torch.full_like(m, hess_init) for m in self.mean]
        self.momentum = [torch.zeros_like(m) for m in self.mean]
        self.steps = 0

    @torch.no_grad()
    def sample(self, generator):
        """Puts a sample of the posterior into the parameters, and returns its eps."""
        eps = [torch.randn(h.shape, generator=generator) / (self.ess * (h + self.decay)).sqrt() for h in self.hess]
        for p, m, e in zip(self.params, self.mean, eps):
            p.copy_(m + e)
        return eps

    @torch.no_grad()
    def step(self, eps, grads, lr):
        """A step with the gradients at mean + eps, after which the parameters hold the new mean."""
        (b1, b2), d = self.betas, self.decay
        shorten = min(1.0, self.max_norm / float(torch.stack([g.norm() for g in grads]).norm()))
        self.steps += 1
        for p, m, h, u, e, g in zip(self.params, self.mean, self.hess, self.momentum, eps, grads):
            g = shorten * g
            hhat = self.ess * (h + d) * e * g
            u.copy_(b1 * u + (1 - b1) * g)
            h.copy_(b2 * h + (1 - b2) * hhat + (1 - b2) ** 2 * (h - hhat) ** 2 / (2 * (h + d)))
            m.sub_(lr * (self.hess_init + d) * (u / (1 - b1**self.steps) + d * m) / (h + d))
            p.copy_(m)


# -- the memory
def fair_shares(available, budget):
    """Shares a budget out over classes, equally where each has that many; what does not divide goes to the first."""
    shares = [0] * len(available)
    for _ in range(min(budget, sum(available))):
        shares[min((i for i, n in enumerate(available) if shares[i] < n), key=lambda i: shares[i])] += 1
    return shares


def dual_features(logits, features, generator):
    """256 random projections of z = sqrt(Lambda_T) (x) (phi, 1): z z^T is an example's curvature in the last layer.

    sqrt(Lambda_T)_cd = sqrt(p_c) (1_cd - p_d), with p = softmax(f / T) and phi the features that go into the layer.
    """
    p, phi = (logits / T).softmax(1), F.pad(features, (0, 1), value=1.0)
    c, d = torch.randint(p.shape[1], (2, 256), generator=generator)
    return p.sqrt()[:, c] * ((c == d).float() - p[:, d]) * (phi @ torch.randn(phi.shape[1], 256, generator=generator))


def one_of_each_cluster(x, n, generator):
    """The rows of x that are nearest to the centres of n clusters, by 8 rounds of k-means, in random order."""
    centres = x[torch.randperm(len(x), generator=generator)[:n]]
    for _ in range(8):
        cell = torch.cdist(x, centres).argmin(1)
        counts, sums = torch.bincount(cell, minlength=n)[:, None], torch.zeros_like(centres).index_add_(0, cell, x)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    distances, rows = torch.cdist(centres, x), []
    for from_centre in distances:
        rows.append(int(from_centre.argmin()))
        distances[:, rows[-1]] = torch.inf  # no row twice
    return torch.tensor(rows)[torch.randperm(n, generator=generator)]


def cell_means(x, weights, n):
    """Memory vectors: the first n rows of x become the weighted means of the rows that are nearest to each.

    The first layer sees x by W x: of a mean it gives, for every W, the mean of what it gives of the cell. Returns the
    means, the sums of weights, and sqrt(w_i) (x_i - mean), which the means leave out.
    """
    flat = x.float()
    cell = torch.cat([torch.arange(n), torch.cdist(flat[n:], flat[:n]).argmin(1)])  # which of the first n
    totals = torch.zeros(n).index_add_(0, cell, weights)
    means = torch.zeros(n, flat.shape[1]).index_add_(0, cell, flat * weights[:, None]) / totals[:, None]
    return means.round().to(torch.uint8), totals, weights.sqrt()[:, None] * (flat - means[cell])


def draws_of(left_out, generator):
    """512 draws of noise with the covariance (left out)^T (left out); draws of two parts add up to those of both."""
    return torch.randn(512, len(left_out), generator=generator) @ left_out


def with_noise(x, draws, examples, scale, generator):
    """Images that memory vectors may stand for: noise with the covariance of what was left out, per past example."""
    picked = torch.randint(1024, (len(x),), generator=generator)
    signs = (picked % 2 * 2 - 1) * (scale / math.sqrt(examples))
    return (x + draws[picked // 2] * signs[:, None]).round().clamp(0, 255).to(torch.uint8)


def systematic(y, weights, n, generator):
    """Positions of n memory vectors: each, and each class, as often as its weight says, give or take one."""
    order = torch.randperm(len(y), generator=generator)
    order = order[y[order].argsort(stable=True)]
    until = weights[order].cumsum(0)
    steps = (torch.arange(n) + torch.rand((), generator=generator)) * (until[-1] / n)
    return order[torch.searchsorted(until, steps).clamp_max(len(y) - 1)[torch.randperm(n, generator=generator)]]


def soft_labels(net, x, draws, examples, generator):
    """T log mean softmax(f / T), the mean over 8 images that each memory vector may stand for."""
    p = sum((net(with_noise(x, draws, examples, 1.0, generator)) / T).softmax(1) for _ in range(8)) / 8
    return (T * p.log()).clamp_min(-1e4)  # finite where p is 0


class Memory:
    """Vectors of each class, the most important first, and weights: of how many examples each is the mean."""

    def __init__(self, size):
        self.size, self.counts, self.vectors, self.weights, self.draws = size, {}, {}, {}, torch.zeros(512, 64)

    def take_in(self, x, y, net, generator):
        """Takes in an experience that was just learned: chosen examples with the others merged into them."""
        self.counts |= {c: int((y == c).sum()) for c in y.unique().tolist()}
        for c, n in zip(self.counts, fair_shares(list(self.counts.values()), self.size)):
            if c not in self.vectors:
                mine = x[y == c]
                chosen = one_of_each_cluster(dual_features(net(mine), net.inputs[-1], generator), n, generator)
                others = torch.ones(len(mine), dtype=torch.bool).index_fill_(0, chosen, False)
                self.vectors[c], self.weights[c] = torch.cat([mine[chosen], mine[others]]), torch.ones(len(mine))
            self.vectors[c], self.weights[c], left_out = cell_means(self.vectors[c], self.weights[c], n)
            self.draws += draws_of(left_out, generator)
        self.x, self.w = torch.cat(list(self.vectors.values())), torch.cat(list(self.weights.values()))
        self.y = torch.cat([torch.full((len(w),), c) for c, w in self.weights.items()])
        self.seen = sum(self.counts.values())
        self.soft = soft_labels(net, self.x, self.draws, self.seen, generator)  # of all: f_old is the network now

    def replay(self, generator):
        """Images that the memory stands for, their labels and soft labels."""
        rows = systematic(self.y, self.w, REPLAYED, generator)
        return with_noise(self.x[rows], self.draws, self.seen, SPREAD, generator), self.y[rows], self.soft[rows]


# -- the K-prior
def function_space(logits, old_logits):
    """Mean of T^2 CE(softmax(f_old / T), softmax(f / T))."""
    return -(T**2) * ((old_logits / T).softmax(1) * (logits / T).log_softmax(1)).sum(1).mean()


@torch.enable_grad()
def kronecker_factors(net, x, generator):
    """Of each layer A = mean of a a^T, with a its inputs and a 1, and G = mean of J^T Lambda_T J, J = df/d(output).

    J^T Lambda_T J is estimated without bias by one backward pass, through p - onehot(k) with k drawn from p.
    """
    logits = net(x)
    p = (logits.detach() / T).softmax(1)
    k = torch.multinomial(p, 1, generator=generator).squeeze(1)
    deltas = torch.autograd.grad(logits, net.outputs, p - F.one_hot(k, p.shape[1]))
    inputs = [F.pad(a.detach(), (0, 1), value=1.0) for a in net.inputs]
    return [(a.T @ a / len(x), d.T @ d / len(x)) for a, d in zip(inputs, deltas)]


class KroneckerPrior:
    """1/2 sum_ij min(c g_i a_j, cap) [U_G^T (W - W_old) U_A]_ij^2: leading eigenvalues, eigenvectors of G and A."""

    def __init__(self):
        self.seen, self.factors, self.anchors = 0, [], []

    def take_in(self, net, x, generator):
        """Takes in an experience that was just learned: the factors are means over the past, the weights are W_old."""
        new = kronecker_factors(net, x[torch.randperm(len(x), generator=generator)[:500]], generator)
        self.seen += len(x)
        old, share = self.factors or new, len(x) / self.seen
        self.factors = [(A.lerp(new_A, share), G.lerp(new_G, share)) for (A, G), (new_A, new_G) in zip(old, new)]
        self.anchors = []
        for layer, (A, G) in zip(net.layers, self.factors):
            (a, U_A), (g, U_G) = torch.linalg.eigh(A), torch.linalg.eigh(G)  # in ascending order
            a, U_A, g, U_G = a[-64:], U_A[:, -64:], g[-16:], U_G[:, -16:]
            curvature = (STRENGTH * torch.outer(g, a)).clamp(0, CAP)
            self.anchors.append((U_G, U_A, curvature, (U_G.T @ with_bias(layer) @ U_A).detach()))

    def loss(self, net):
        total = 0.0
        for layer, (U_G, U_A, curvature, old) in zip(net.layers, self.anchors):
            total = total + 0.5 * (curvature * (U_G.T @ with_bias(layer) @ U_A - old).square()).sum()
        return total


def with_bias(layer):
    return torch.cat([layer.weight, layer.bias[:, None]], 1)


# -- learning
def loss_of_step(net, x, y, n, memory, prior, generator):
    """The loss at the top of this file, of a batch (x, y) of an experience of n examples."""
    if not memory.vectors:  # the first
        return F.cross_entropy(net(x), y)
    z, z_y, z_soft = memory.replay(generator)
    f, f_z = net(torch.cat([x, z])).split([len(x), len(z)])
    past = 0.5 * F.cross_entropy(f_z, z_y) + 0.5 * function_space(f_z, z_soft) + prior.loss(net)
    return (n * F.cross_entropy(f, y) + memory.seen * past) / (n + memory.seen)


def learn(epochs=50, memory=100, seed=0, batch=32, tell=print):
    """Learns the stream and returns the accuracies (5, 5): row i after experience i, column j on experience j."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x, y, test_x, test_y = digits()
    net, memory, prior, matrix = MLP(), Memory(memory), KroneckerPrior(), []
    experiences = [(x[y // 2 == i], y[y // 2 == i]) for i in range(5)]
    steps = epochs * sum(math.ceil(len(new_y) / batch) for _, new_y in experiences) / 5
    ivon = IVON(net.parameters(), **settings_by_rule(sum(p.numel() for p in net.parameters()), len(y) / 5, steps))
    for new_x, new_y in experiences:
        orders = [torch.randperm(len(new_y), generator=generator) for _ in range(epochs)]
        batches = [rows for order in orders for rows in order.split(batch)]
        for done, rows in enumerate(batches):
            eps = ivon.sample(generator)
            loss = loss_of_step(net, new_x[rows], new_y[rows], len(new_y), memory, prior, generator)
            ivon.step(eps, torch.autograd.grad(loss, ivon.params), ivon.lr * (1 - done / len(batches)))
        with torch.no_grad():
            memory.take_in(new_x, new_y, net, generator)
            prior.take_in(net, new_x, generator)
            right = (net(test_x).argmax(1) == test_y).float()
        matrix.append([float(right[test_y // 2 == j].mean()) for j in range(5)])
        tell(f"after experience {len(matrix)}: " + " ".join(f"{accuracy:.3f}" for accuracy in matrix[-1]))
    return matrix


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learns Split Digits, and prints the matrix of accuracies.")
    for name, default in (("epochs", 50), ("memory", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    torch.set_num_threads(1)  # more are slower on a network this small
    accuracy = learn(**vars(parser.parse_args()))
    print(f"average accuracy {sum(accuracy[-1]) / 5:.4f}")
