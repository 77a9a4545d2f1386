"""Where a class-conditional VAE's latents of each class lie, found once it is trained.

What enters: a trained network and the images it learned from. What leaves: the network, with a prior for each class.

Shape letters: N images, K classes, Z latent dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.generate.pictures import Pictures

_BATCH = 256


def fit_class_priors(network: Any, images: Pictures) -> None:
    """Give each class the mean and covariance that q(z | x, y) has over its images; a class without any keeps N(0, I).

    Training holds the latents of all images together to the prior, not those of each class, and latents that tell the
    class too cost a few nats of several hundred: drawn from N(0, I), images of a class are often of another.

    Args:
        network: a `VAENetwork` with classes; only its priors change.
        images: with a label each.

    Source: density estimation after training, Ghosh, Sajjadi, Vergari, Black & Schölkopf, "From Variational to
    Deterministic Autoencoders", ICLR 2020, section 4. Deviation: a Gaussian for each class.
    """
    labels = torch.from_numpy(images.labels)
    device = network.prior_mean.device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(images)))
            parts.append(network.encode(images.batch(rows).to(device), labels[rows].to(device)))
    location, spread = (torch.cat(each).double().cpu() for each in zip(*parts, strict=True))
    means, covariances = aggregate_moments(location, network.latent.variance(spread), labels, network.num_classes)
    unit = network.latent.variance(torch.zeros(1, dtype=torch.float64)).sqrt()
    network.prior_mean.copy_(means)
    network.prior_factor.copy_(torch.linalg.cholesky(covariances) / unit)


def aggregate_moments(
    location: Float[Tensor, "n z"], variance: Float[Tensor, "n z"], labels: Int[Tensor, " n"], num_classes: int
) -> tuple[Float[Tensor, "k z"], Float[Tensor, "k z z"]]:
    """Mean and covariance of Σ_i q(z | x_i) / N_k of each class: Cov(μ) + mean diag σ².

    Z images' worth of the classes' mean covariance are added to each class's own, so that few images say little
    (Friedman, "Regularized Discriminant Analysis", JASA 1989). A class without images has 0 and I.
    """
    K, Z = num_classes, location.shape[1]
    means, scatters, counts = location.new_zeros(K, Z), location.new_zeros(K, Z, Z), location.new_zeros(K)
    for k in range(K):
        mine = labels == k
        if mine.any():
            counts[k] = mine.sum()
            means[k] = location[mine].mean(dim=0)
            offsets = location[mine] - means[k]
            scatters[k] = offsets.T @ offsets + variance[mine].sum(dim=0).diag()
    pooled = scatters.sum(dim=0) / counts.sum()
    covariances = (scatters + Z * pooled) / (counts + Z)[:, None, None]
    covariances[counts == 0] = torch.eye(Z, dtype=location.dtype)
    return means, covariances
