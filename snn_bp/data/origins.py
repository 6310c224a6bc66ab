"""Where the sets that `Data` knows come from, as their publishers say, and where their files lie once they are there.

Addresses and hashes of archives are tonic's; licences are those that a publisher's own page states.
"""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file that tonic fetches, from where, and its MD5 hash as tonic states it."""

    name: str
    url: str
    md5: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One set, by the name of tonic's class."""

    source: str  # authors and year
    page: str  # where its publishers show it
    parts: dict[str, str]  # files of recordings below the set's folder, or one file that has them in rows
    archives: tuple[Archive, ...]
    licence: str = ""  # empty: its publishers state none that is known here
    mirrors: tuple[str, ...] = ()  # addresses of the same files, or of pages that have them
    is_fetched: bool = True  # by tonic


_MENDELEY = "https://data.mendeley.com/public-files/datasets"
_HEIDELBERG = "https://zenkelab.org/datasets/"
_HEIDELBERG_PAGE = "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/"
_HEIDELBERG_MIRRORS = (
    "https://compneuro.net/datasets/",
    "https://ieee-dataport.org/open-access/heidelberg-spiking-datasets",
)
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
ORIGINS = MappingProxyType({
    "NMNIST": Origin(
        source="Orchard et al. 2015",
        page="https://www.garrickorchard.com/datasets/n-mnist",
        licence="CC BY-SA 4.0",
        mirrors=(
            "https://data.mendeley.com/datasets/468j46mzdv/1",
            "https://drive.google.com/drive/folders/16PYo5Jo3VlFC6-Lvw4c2hB-EAEf_egTL",
        ),
        parts={"train": "Train/*/*.bin", "test": "Test/*/*.bin"},
        archives=(
            Archive(
                name="train.zip",
                url=f"{_MENDELEY}/468j46mzdv/files/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
                md5="20959b8e626244a1b502305a9e6e2031",
            ),
            Archive(
                name="test.zip",
                url=f"{_MENDELEY}/468j46mzdv/files/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
                md5="69ca8762b2fe404d9b9bad1103e97832",
            ),
        ),
    ),
    "DVSGesture": Origin(
        source="Amir et al. 2017, cut into its gestures by tonic's authors",
        page="https://research.ibm.com/interactive/dvsgesture/",
        licence="CC BY 4.0",
        parts={"train": "ibmGestureTrain/*/*.npy", "test": "ibmGestureTest/*/*.npy"},
        archives=(
            Archive(
                name="ibmGestureTrain.tar.gz",
                url="https://figshare.com/ndownloader/files/38022171",
                md5="3a8f0d4120a166bac7591f77409cb105",
            ),
            Archive(
                name="ibmGestureTest.tar.gz",
                url="https://figshare.com/ndownloader/files/38020584",
                md5="56070e45dadaa85fff82e0fbfbc06de5",
            ),
        ),
    ),
    "SHD": Origin(
        source="Cramer et al. 2020",
        page=_HEIDELBERG_PAGE,
        licence="CC BY 4.0",
        mirrors=_HEIDELBERG_MIRRORS,
        parts={"train": "shd_train.h5", "test": "shd_test.h5"},
        archives=(
            Archive(
                name="shd_train.h5.zip",
                url=f"{_HEIDELBERG}shd_train.h5.zip",
                md5="f3252aeb598ac776c1b526422d90eecb",
            ),
            Archive(
                name="shd_test.h5.zip", url=f"{_HEIDELBERG}shd_test.h5.zip", md5="1503a5064faa34311c398fb0a1ed0a6f"
            ),
        ),
    ),
    "SSC": Origin(
        source="Cramer et al. 2020",
        page=_HEIDELBERG_PAGE,
        licence="CC BY 4.0",
        mirrors=_HEIDELBERG_MIRRORS,
        parts={"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"},
        archives=(
            Archive(
                name="ssc_train.h5.zip",
                url=f"{_HEIDELBERG}ssc_train.h5.zip",
                md5="d102be95e7144fcc0553d1f45ba94170",
            ),
            Archive(
                name="ssc_valid.h5.zip",
                url=f"{_HEIDELBERG}ssc_valid.h5.zip",
                md5="b4eee3516a4a90dd0c71a6ac23a8ae43",
            ),
            Archive(
                name="ssc_test.h5.zip", url=f"{_HEIDELBERG}ssc_test.h5.zip", md5="a35ff1e9cffdd02a20eb850c17c37748"
            ),
        ),
    ),
    "CIFAR10DVS": Origin(
        source="Li et al. 2017",
        page="https://www.frontiersin.org/articles/10.3389/fnins.2017.00309/full",
        parts={"train": "*/*.aedat4"},
        archives=(
            Archive(
                name="CIFAR10DVS.zip",
                url="https://figshare.com/ndownloader/files/38023437",
                md5="ce3a4a0682dc0943703bd8f749a7701c",
            ),
        ),
    ),
    "NCALTECH101": Origin(
        source="Orchard et al. 2015",
        page="https://www.garrickorchard.com/datasets/n-caltech101",
        licence="CC BY 4.0",
        parts={"train": "Caltech101/*/*.bin"},
        archives=(
            Archive(
                name="N-Caltech101-archive.zip",
                url=f"{_MENDELEY}/cy6cvx3ryv/files/36b5c52a-b49d-4853-addb-a836a8883e49/file_downloaded",
                md5="66201824eabb0239c7ab992480b50ba3",
            ),
        ),
    ),
    "ASLDVS": Origin(
        source="Bi et al. 2019",
        page="https://github.com/PIX2NVS/NVS2Graph",
        parts={"train": "**/*.mat"},
        archives=(
            Archive(
                name="ASLDVS.zip",
                url="https://www.dropbox.com/sh/ibq0jsicatn7l6r/AACNrNELV56rs1YInMWUs9CAa?dl=1",
                md5="33f8b87bf45edc0bfed0de41822279b9",
            ),
        ),
    ),
    "DVSLip": Origin(
        source="Tan et al. 2022",
        page="https://sites.google.com/view/event-based-lipreading",
        parts={"train": "DVS-Lip/train/*/*.npy", "test": "DVS-Lip/test/*/*.npy"},
        archives=(
            Archive(
                name="DVS-Lip.zip",
                url="https://drive.google.com/file/d/1dBEgtmctTTWJlWnuWxFtk8gfOdVVpkQ0/view",
                md5="2dcb959255122d4cdeb6094ca282494b",
            ),
        ),
        is_fetched=False,
    ),
    "POKERDVS": Origin(
        source="Serrano-Gotarredona & Linares-Barranco 2015",
        page="http://www2.imse-cnm.csic.es/caviar/POKERDVS.html",
        parts={"train": "pips_train/*/*.npy", "test": "pips_test/*/*.npy"},
        archives=(
            Archive(name="pips_train.tar.gz", url="", md5="412bcfb96826e4fcb290558e8c150aae"),
            Archive(name="pips_test.tar.gz", url="", md5="eef2bf7d0d3defae89a6fa98b07c17af"),
        ),
        is_fetched=False,  # tonic looks for them within its own package, where they are not
    ),
    "SMNIST": Origin(
        source="LeCun et al. 1998; tonic makes spikes of the images",
        page="http://yann.lecun.com/exdb/mnist/",
        parts={"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"},
        archives=tuple(
            Archive(name=f"{name}.gz", url=f"{_MNIST}{name}.gz", md5=md5)
            for name, md5 in (
                ("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                ("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432"),
                ("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3"),
                ("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c"),
            )
        ),
    ),
    "NTIDIGITS18": Origin(
        source="Anumula et al. 2018",
        page="https://docs.google.com/document/d/1Uxe7GsKKXcy6SlDUX4hoJVAC0-UkH-8kr5UXp0Ndi1M",
        parts={"train": "n-tidigits.hdf5", "test": "n-tidigits.hdf5"},
        archives=(
            Archive(
                name="n-tidigits.hdf5",
                url=(
                    "https://www.dropbox.com/scl/fi/1x4lxt9yyw25sc3tez8oi/n-tidigits.hdf5?e=2&"
                    "rlkey=w8gi5udvib2zqzosusa5tr3wq&dl=1"
                ),
                md5="360a2d11e5429555c9197381cf6b58e0",
            ),
        ),
    ),
})  # fmt: skip
