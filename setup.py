"""What pyproject.toml cannot say: the fixture folders of the datasets are installed as well, as `medvec_samples`.

They are the sample bundles that a dataset is read from when the settings name no source. The scripts beside them that made
them are not installed: they want packages that medvec does not, and files of their own.
"""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithoutScripts(build_py):
    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [one for one in found if package != "medvec_samples" or one[1] == "__init__"]


setup(
    packages=[*find_packages(include=["medvec_assets*", "resources*", "api*"]), "medvec_samples"],
    package_dir={"medvec_samples": "tests/datasets"},
    package_data={
        "medvec_assets": ["dagster.yaml", "modalities/*/*.tsv", "deid/*.txt"],
        "api": ["page/*.html", "page/*.css", "page/*.js"],
        "resources": ["encoders/fitted/*"],
        "medvec_samples": ["*/in/**"],
    },
    cmdclass={"build_py": BuildWithoutScripts},
)
