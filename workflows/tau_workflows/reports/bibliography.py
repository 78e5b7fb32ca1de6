"""BibTeX of the papers and packages that the methods text names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from tau_workflows.reports import methods_answers

#: ``Authors YEAR, source``, and ``journal VOLUME:PAGE`` in the source.
_PAPER = re.compile(r"(?P<authors>.+?) (?P<year>\d{4}), (?P<source>.+)")
_JOURNAL = re.compile(r"(?P<journal>.+) (?P<volume>\d+)(?:\((?P<number>\w+)\))?:(?P<pages>\w+)")


#: What each paper stands for; only those of steps that ran are printed.
PAPERS = {
    "N4": "Tustison et al. 2010, IEEE Trans Med Imaging 29:1310",
    "deepbet": "Fisch et al. 2023, arXiv 2308.07003",
    "greedy": "Yushkevich et al. 2016, Alzheimers Dement 12:P126",
    "Desikan-Killiany": "Desikan et al. 2006, NeuroImage 31:968",
    "halfway space": "Reuter, Schmansky, Rosas and Fischl 2012, NeuroImage 61:1402",
    "CVS atlas": "Postelnicu et al. 2009, IEEE Trans Med Imaging 28:508",
    "FreeSurfer": "Fischl 2012, NeuroImage 62:774",
    "thickness by projection": "Dahnke, Yotter and Gaser 2013, NeuroImage 65:336",
    "Spherical Demons": "Yeo et al. 2010, IEEE Trans Med Imaging 29:650",
    "mutual information": "Studholme, Hill and Hawkes 1999, Pattern Recognit 32:71",
    "one resolution": "Joshi, Koeppe and Fessler 2009, NeuroImage 46:154",
    "standardization by manufacturer": "Moon, Kim, Chung and Jang 2024, arXiv 2406.12632",
    "synthesis": "Moon, Kim, Chung and Jang 2026, Hum Brain Mapp 47(5):e70508",
    "ComBat": "Johnson, Li and Rabinovic 2007, Biostatistics 8:118; Fortin et al. 2018, NeuroImage 167:104",
    "TFCE": "Smith and Nichols 2009, NeuroImage 44:83",
    "Nipype": "Gorgolewski et al. 2011, Front Neuroinform 5:13",
    "BIDS PET": "Norgaard et al. 2022, Sci Data 9:65",
    **methods_answers.PAPERS,
}


def bibtex(papers: Mapping[str, str], packages: Mapping[str, str]) -> str:
    """Return BibTeX entries of papers and packages.

    Parameters
    ----------
    papers
        What each stands for, and its reference: ``Tustison et al. 2010, IEEE Trans Med Imaging 29:1310``; several are
        separated by semicolons.
    packages
        Versions by name.

    Examples
    --------
    >>> print(bibtex({"N4": "Tustison et al. 2010, IEEE Trans Med Imaging 29:1310"}, {}))
    @article{tustison2010,
      author = {Tustison and others},
      year = {2010},
      journal = {IEEE Trans Med Imaging},
      volume = {29},
      pages = {1310},
      note = {N4},
    }
    <BLANKLINE>
    """
    entries = [_paper(name, one) for name, several in papers.items() for one in several.split("; ")]
    entries += [
        _entry("software", re.sub(r"[^a-z0-9]", "", name.lower()), {"title": name, "version": version})
        for name, version in packages.items()
    ]
    return "\n".join(entries)


def _paper(name: str, reference: str) -> str:
    parts = _PAPER.fullmatch(reference)
    if parts is None:
        return _entry("misc", re.sub(r"[^a-z0-9]", "", name.lower()), {"title": name, "howpublished": reference})
    authors = re.sub(r"\s+et al\.", " and others", parts["authors"])
    fields = {"author": " and ".join(re.split(r", | and ", authors)), "year": parts["year"]}
    journal = _JOURNAL.fullmatch(parts["source"])
    if journal is None:
        fields["howpublished"] = parts["source"]
    else:
        fields |= {key: value for key, value in journal.groupdict().items() if value}
    key = re.sub(r"[^a-z]", "", parts["authors"].split(",")[0].split(" ")[0].lower()) + parts["year"]
    return _entry("misc" if journal is None else "article", key, {**fields, "note": name})


def _entry(kind: str, key: str, fields: Mapping[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}", ""])


def package_version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(version not known)"
