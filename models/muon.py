"""Gives the training script the Muon optimizer: momentum whose matrices are orthogonalised before the step."""
# Ref: Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks

import torch

# Quintic Newton-Schulz iteration that drives all singular values into about [0.7, 1.2].
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Nearest (semi-)orthogonal matrices of a batch [n, rows, columns] with rows <= columns."""
    a, b, c = NEWTON_SCHULZ
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay; equal shapes share one iteration."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for weight in group["params"]:
                shapes.setdefault(tuple(weight.shape), []).append(weight)
            for (rows, columns), weights in shapes.items():
                update = torch.stack([self._momentum(weight, group) for weight in weights])
                if rows > columns:
                    update = orthogonalise(update.mT).mT
                else:
                    update = orthogonalise(update)
                scale = max(1.0, rows / columns) ** 0.5
                for weight, step in zip(weights, update):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(step, alpha=-group["lr"] * scale)

    def _momentum(self, weight, group):
        buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        buffer.lerp_(weight.grad, 1 - group["momentum"])
        return weight.grad.lerp(buffer, group["momentum"])
