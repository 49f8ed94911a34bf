"""NSL-KDD: network connections, 41 features each, attacks in four families."""

from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote

from aelab.config import Count, Share, Whole
from aelab.data.fetch import Way, reads
from aelab.data.record import Table
from aelab.data.table import table

HOME = "https://www.unb.ca/cic/datasets/nsl.html"
FILES = {"20percent": "KDDTrain+_20Percent.txt", "full": "KDDTrain+.txt"}
NAMES = """
duration protocol_type service flag src_bytes dst_bytes land wrong_fragment urgent hot num_failed_logins
logged_in num_compromised root_shell su_attempted num_root num_file_creations num_shells num_access_files
num_outbound_cmds is_host_login is_guest_login count srv_count serror_rate srv_serror_rate rerror_rate
srv_rerror_rate same_srv_rate diff_srv_rate srv_diff_host_rate dst_host_count dst_host_srv_count
dst_host_same_srv_rate dst_host_diff_srv_rate dst_host_same_src_port_rate dst_host_srv_diff_host_rate
dst_host_serror_rate dst_host_srv_serror_rate dst_host_rerror_rate dst_host_srv_rerror_rate label difficulty
"""
FAMILIES = {
    "dos": "apache2 back land mailbomb neptune pod processtable smurf teardrop udpstorm worm",
    "probe": "ipsweep mscan nmap portsweep saint satan",
    "r2l": "ftp_write guess_passwd httptunnel imap multihop named phf sendmail snmpgetattack snmpguess spy "
    "warezclient warezmaster xlock xsnoop",
    "u2r": "buffer_overflow loadmodule perl ps rootkit sqlattack xterm",
}


def ways(knobs: Mapping) -> list[Way]:
    """The two files; the full one of training is not downloaded."""
    train = FILES[knobs["train"]]
    return [Way("nsl-kdd", (train, "KDDTest+.txt"), knobs["mirrors"] if train in NSL_MD5 else [])]


@reads(ways)
def nsl_kdd(
    *,
    train: Literal["20percent", "full"],
    data_dir: str | None,
    mirrors: list[str],
    drop: list[str],
    validation: Share,
    contamination: Share,
    limit: Count | None,
    seed: Whole,
) -> Table:
    """The published training file (its first 20 percent, or all) and the whole test file; normal against attacks.

    Source: Tavallaee et al., CISDA 2009. The column of difficulties is left out: it was made from the answers of
    classifiers. Seventeen of the attacks stand in the test file alone.
    """
    files = {FILES[train]: NSL_MD5.get(FILES[train], ""), "KDDTest+.txt": NSL_MD5["KDDTest+.txt"]}
    return table(
        name="nsl_kdd" if train == "20percent" else f"nsl_kdd_{train}",
        path=f"nsl-kdd/{FILES[train]}",
        test_path="nsl-kdd/KDDTest+.txt",
        data_dir=data_dir,
        urls={file: [f"{m.rstrip('/')}/{quote(file)}" for m in mirrors] for file, md5 in files.items() if md5},
        md5=files,
        names=NAMES.split(),
        header=False,
        delimiter=",",
        missing=[],
        label="label",
        normal="normal",
        positive=None,
        families={family: attacks.split() for family, attacks in FAMILIES.items()},
        categorical=[name for name in ("protocol_type", "service", "flag") if name not in drop],
        drop=["difficulty", *drop],
        repair=None,
        time=None,
        test=0.2,
        validation=validation,
        contamination=contamination,
        limit=limit,
        split_seed=0,
        seed=seed,
        source=HOME,
        licence="free for research, with citation",
    )


NSL_MD5 = {
    "KDDTrain+_20Percent.txt": "7255822dd1ef129a6809090565b95550",
    "KDDTest+.txt": "d92f02fa82e5daf868a0566d5d6ce577",
}
