"""The distribution ``completion-stream``, which installs the package ``completion``.

The name ``completion`` belongs to another project on the package index.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
found = re.search(r'__version__ = "(.+)"', (HERE / "completion" / "version.py").read_text(encoding="utf-8"))
assert found, "completion/version.py has no __version__"

LOCAL = ["xllamacpp>=2026.10.11549", "filelock>=3.12", "platformdirs>=4"]
TOOLS = ["pydantic>=2.11", "docstring-parser>=0.16", "jsonschema>=4.21", "referencing>=0.31"]
SPEED = ["msgspec>=0.19"]
BEDROCK = ["botocore>=1.35"]
GOOGLE = ["google-auth>=2.30"]
REDACTION = ["regex>=2024.9.11"]
BATCH = ["tqdm>=4.66"]
DASK = ["distributed>=2024.8"]
OTEL = ["opentelemetry-api>=1.30"]
NOTEBOOK = ["ipykernel>=6.29"]
# The programs in examples/, and the servers for them.
EXAMPLES = ["flask>=3", "django>=4.2", "gunicorn>=23", "uvicorn>=0.30", "markdown-it-py>=3"]
UVLOOP = ["uvloop>=0.21; sys_platform != 'win32'"]
TEST = [
    *("pytest>=8", "pytest-xdist>=3.6.1", "hypothesis>=6.100", "coverage>=7.6", "trustme>=1.2", "docutils>=0.21"),
    *("pygments>=2.17", "typing-extensions>=4.13"),
    *("opentelemetry-sdk>=1.30", "opentelemetry-exporter-otlp-proto-http>=1.30"),
]

setup(
    name="completion-stream",
    version=found.group(1),
    description="A language model's answer as a stream: one synchronous, provider-agnostic contract",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["completion", "completion.*"]),
    package_data={"completion": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        # Older versions have known security holes. requests itself allows older versions of urllib3.
        "requests>=2.32.4",
        "urllib3>=2.6.3",
        "sseclient-py>=1.8",
        "dataclasses-json>=0.6.7",
        "backoff>=2.2",
    ],
    extras_require={
        "local": LOCAL,
        "tools": TOOLS,
        "bedrock": BEDROCK,
        "google": GOOGLE,
        "redaction": REDACTION,
        "speed": SPEED,
        "otel": OTEL,
        "batch": BATCH,
        "dask": DASK,
        "notebook": NOTEBOOK,
        "examples": [*LOCAL, *EXAMPLES],
        "test": [*LOCAL, *TOOLS, *BEDROCK, *GOOGLE, *REDACTION, *SPEED, *OTEL, *BATCH, *UVLOOP, *TEST],
        # For tests/apps: real web servers, a browser, Jupyter kernels.
        "apps": [*EXAMPLES, *NOTEBOOK, *DASK, "nbclient>=0.10", "playwright>=1.48", "gevent>=24.10", "celery>=5.4"],
        "bench": [*SPEED, *BEDROCK, "anthropic>=0.80", "openai>=2", "matplotlib>=3.9", "vcrpy>=7", "trustme>=1.2"],
    },
    entry_points={
        "console_scripts": ["completion = completion.cli:main"],
        "pytest11": ["completion = completion.testing.pytest_plugin"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Software Development :: Libraries",
        "Typing :: Typed",
    ],
)
