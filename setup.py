"""What pyproject.toml cannot say: `configs/` is installed as a folder of the package, so that configs have names."""

import setuptools

setuptools.setup(
    packages=[*setuptools.find_packages(include=["jepa_jax*"]), "jepa_jax.configs", "jepa_jax.configs.eval"],
    package_dir={"jepa_jax.configs": "configs", "jepa_jax.configs.eval": "configs/eval"},
)
