"""The iteration in PyTorch, unrolled by hand, by `higher` or by TorchOpt."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.rivals import torch_models
from benchmarks.rivals.task import BETAS, LEARNING_RATE, IterationNoise, StepNoise, Task


class _TorchRival:
    def __init__(self, task: Task, device: str) -> None:
        self._task = task
        make_energy: Any = torch_models.ResidualEnergy if task.is_image else torch_models.GRBM
        make_posterior: Any = (
            torch_models.ConvGaussianPosterior if task.is_image else torch_models.BernoulliPosterior
        )
        self._energy = make_energy(task.theta).to(device)
        self._posterior = make_posterior(task.phi).to(device)
        self._theta_optimizer = torch.optim.Adam(self._energy.parameters(), LEARNING_RATE, BETAS)
        self._v = torch.from_numpy(task.v).to(device)
        self._std = torch.from_numpy(task.noise_std).to(device).reshape(-1, *[1] * (task.v.ndim - 1))

    def hypergradient(self, noise: IterationNoise) -> np.ndarray:
        """The gradient of the first iteration."""
        lower = [self._to_tensors(one) for one in noise.lower]
        self._differentiate(lower, self._to_tensors(noise.higher))
        grads = {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).detach().cpu()
            for name, p in self._energy.named_parameters()
        }
        return torch_models.energy_gradients(self._energy, grads)

    def run(self, num_iterations: int) -> None:
        """Iterations in a loop of Python."""
        num_losses = self._task.lower_steps + self._task.num_steps
        for _ in range(num_iterations):
            self._differentiate([self._draw() for _ in range(num_losses)], self._draw())
            self._theta_optimizer.step()
        if self._v.is_cuda:
            torch.cuda.synchronize()

    def _differentiate(self, lower: list[Any], higher: Any) -> None:
        """Leaves the hypergradient in the energy's parameters, and phi after K steps."""
        raise NotImplementedError

    def _to_tensors(self, noise: StepNoise) -> tuple[Tensor, Tensor]:
        visible, latent = (torch.from_numpy(part).to(self._v.device) for part in noise)
        return visible, latent

    def _draw(self) -> tuple[Tensor, Tensor]:
        visible = torch.randn_like(self._v)
        shape, device = (len(self._v), self._task.num_hidden), self._v.device
        if self._task.is_image:
            return visible, torch.randn(shape, device=device)
        uniform = torch.rand(shape, device=device).clamp(1e-7, 1 - 1e-7)
        return visible, torch.logit(uniform)

    def _lower(self, posterior: nn.Module, noise: tuple[Tensor, Tensor]) -> Tensor:
        v = self._v + self._std * noise[0]
        moments = posterior(v)
        h = posterior.draw(moments, noise[1])
        log_ratio = -self._energy(v, h) - posterior.log_prob(moments, h)
        if not self._task.is_image:
            return -log_ratio.mean()
        (score,) = torch.autograd.grad(log_ratio.sum(), h, create_graph=True)
        return (0.5 * (score**2).sum(-1) / self._std.flatten()).mean()

    def _higher(self, posterior: nn.Module, noise: tuple[Tensor, Tensor]) -> Tensor:
        v = (self._v + self._std * noise[0]).requires_grad_()
        h = posterior.draw(posterior(v.detach()), noise[1])
        log_ratio = -self._energy(v, h) - posterior.log_prob(posterior(v), h)
        (score,) = torch.autograd.grad(log_ratio.sum(), v, create_graph=True)
        scale, base = (self._std, 0.1**2) if self._task.is_image else (1.0, self._std)
        return 0.5 * ((score / scale + noise[0] / base) ** 2).sum() / len(v)


class Eager(_TorchRival):
    """By calls of the posterior with other parameters, which nothing but PyTorch is needed for."""

    name = "PyTorch"

    def __init__(self, task: Task, device: str) -> None:
        super().__init__(task, device)
        self._params = {name: p.detach() for name, p in self._posterior.named_parameters()}
        zeros = {name: torch.zeros_like(p) for name, p in self._params.items()}
        self._moments = (zeros, zeros, 0)

    def _differentiate(self, lower: list[Any], higher_noise: Any) -> None:
        split = self._task.lower_steps
        for noise in lower[:split]:
            self._params, self._moments = self._descend(self._params, self._moments, noise, False)
        params, moments = self._params, self._moments
        for noise in lower[split:]:
            params, moments = self._descend(params, moments, noise, True)
        self._theta_optimizer.zero_grad()
        self._higher(_WithParameters(self._posterior, params), higher_noise).backward()

    def _descend(self, params: Any, moments: Any, noise: Any, keeps_graph: bool) -> tuple[Any, Any]:
        """A step of Adam, in the graph of theta or outside of it."""
        if not keeps_graph:
            params = {name: p.detach() for name, p in params.items()}
        params = {name: p if p.requires_grad else p.requires_grad_() for name, p in params.items()}
        loss = self._lower(_WithParameters(self._posterior, params), noise)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=keeps_graph)
        first, second, count = moments
        count, (b1, b2) = count + 1, BETAS
        first = {name: b1 * first[name] + (1 - b1) * g for name, g in zip(params, grads, strict=True)}
        second = {name: b2 * second[name] + (1 - b2) * g**2 for name, g in zip(params, grads, strict=True)}
        moved = {}
        for name, p in params.items():
            root = torch.sqrt(second[name] / (1 - b2**count) + 1e-16) + 1e-8
            moved[name] = p - LEARNING_RATE * first[name] / (1 - b1**count) / root
        if not keeps_graph:
            moved = {name: p.detach() for name, p in moved.items()}
        return moved, (first, second, count)


class _WithParameters:
    """A posterior called with parameters that are given."""

    def __init__(self, posterior: Any, params: dict[str, Tensor]) -> None:
        self._posterior, self._params = posterior, params
        self.draw, self.log_prob = posterior.draw, posterior.log_prob

    def __call__(self, v: Tensor) -> Any:
        return torch.func.functional_call(self._posterior, self._params, (v,))


class Higher(_TorchRival):
    """By a functional copy of the posterior for each step."""

    name = "PyTorch + higher"

    def __init__(self, task: Task, device: str) -> None:
        import higher

        super().__init__(task, device)
        self._innerloop_ctx = higher.innerloop_ctx
        self._optimizer = torch.optim.Adam(self._posterior.parameters(), LEARNING_RATE, BETAS)

    def _differentiate(self, lower: list[Any], higher_noise: Any) -> None:
        parameters = list(self._posterior.parameters())
        for noise in lower[: self._task.lower_steps]:
            grads = torch.autograd.grad(self._lower(self._posterior, noise), parameters)
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            self._optimizer.step()
        self._theta_optimizer.zero_grad()
        with self._innerloop_ctx(self._posterior, self._optimizer) as (posterior, optimizer):
            for noise in lower[self._task.lower_steps :]:
                optimizer.step(self._lower(posterior, noise))
            self._higher(posterior, higher_noise).backward()


class TorchOpt(_TorchRival):
    """By an optimiser whose updates stay in the graph."""

    name = "PyTorch + TorchOpt"

    def __init__(self, task: Task, device: str) -> None:
        import torchopt

        super().__init__(task, device)
        self._torchopt = torchopt
        self._optimizer = torchopt.MetaAdam(self._posterior, LEARNING_RATE, BETAS, eps_root=1e-16)

    def _differentiate(self, lower: list[Any], higher_noise: Any) -> None:
        for noise in lower[: self._task.lower_steps]:
            self._optimizer.step(self._lower(self._posterior, noise))
            self._torchopt.stop_gradient(self._posterior)
            self._torchopt.stop_gradient(self._optimizer)
        kept = [
            self._torchopt.extract_state_dict(part, by="copy") for part in (self._posterior, self._optimizer)
        ]
        self._theta_optimizer.zero_grad()
        for noise in lower[self._task.lower_steps :]:
            self._optimizer.step(self._lower(self._posterior, noise))
        self._higher(self._posterior, higher_noise).backward()
        for part, state in zip((self._posterior, self._optimizer), kept, strict=True):
            self._torchopt.recover_state_dict(part, state)
