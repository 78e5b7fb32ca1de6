"""BibTeX of the papers and packages that the methods text names."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: ``Authors YEAR, source``, and ``journal VOLUME:PAGE`` in the source.
_PAPER = re.compile(r"(?P<authors>.+?) (?P<year>\d{4}), (?P<source>.+)")
_JOURNAL = re.compile(r"(?P<journal>.+) (?P<volume>\d+)(?:\((?P<number>\w+)\))?:(?P<pages>\w+)")


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
