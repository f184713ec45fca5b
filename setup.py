"""What setup.cfg cannot say: the recipes, which lie at the top of a clone, are part of the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["syneg*", "dataset_builders*"]), "syneg.recipes"],
    package_dir={"syneg.recipes": "recipes"},
)
