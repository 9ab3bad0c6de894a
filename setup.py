"""What pyproject.toml cannot say: the fixture folders of the datasets are installed as well, as `medvec_samples`.

They are the sample bundles that a dataset is read from when the settings name no source.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["medvec_assets*", "resources*", "api*"]), "medvec_samples"],
    package_dir={"medvec_samples": "tests/datasets"},
    package_data={
        "medvec_assets": ["dagster.yaml", "modalities/*/*.tsv", "deid/*.txt"],
        "api": ["page/*.html", "page/*.css", "page/*.js"],
        "resources": ["encoders/fitted/*"],
        "medvec_samples": ["*/in/**"],
    },
)
