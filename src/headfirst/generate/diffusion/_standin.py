import torch
def karras_sigmas(num_steps, sigma_min, sigma_max, rho=7.0):
    t = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    return (sigma_max ** (1 / rho) + t * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
def dpm_pp_2m(denoiser, x, sigmas, *, generator=None):
    lam = -sigmas.log(); old = None
    for i in range(len(sigmas) - 1):
        d = denoiser(x, sigmas[i])
        if sigmas[i + 1] == 0: return d
        h = lam[i + 1] - lam[i]
        dd = d if old is None else (1 + h / (2 * (lam[i] - lam[i - 1]))) * d - (h / (2 * (lam[i] - lam[i - 1]))) * old
        x = (sigmas[i + 1] / sigmas[i]) * x - torch.expm1(-h) * dd; old = d
    return x
def guided(c, u, weight, rescale=0.0, interval=None):
    return lambda x, s: (1 - weight) * u(x, s) + weight * c(x, s)
