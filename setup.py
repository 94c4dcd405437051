"""What pyproject.toml cannot say: `configs/` is installed as a folder of the package, so that configs have names."""

import setuptools

CONFIGS = {
    "jepa_jax.configs": "configs",
    "jepa_jax.configs.eval": "configs/eval",
    "jepa_jax.configs.finetune": "configs/finetune",
    "jepa_jax.configs.study": "configs/study",
}

setuptools.setup(
    packages=[*setuptools.find_packages(include=["jepa_jax*"]), *CONFIGS],
    package_dir=CONFIGS,
)
