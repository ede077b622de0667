"""Every way to sample that people use, in a real ComfyUI: the picture is untouched, the maps are the equation's.

The cases themselves are in `inside/`: they run in ComfyUI's own process.
"""

from __future__ import annotations

import pytest

from .hosts import Inside, case_names

pytestmark = pytest.mark.host


@pytest.mark.parametrize("case", case_names("cases_unet"))
def test_unet(inside: Inside, case: str) -> None:
    inside.run("cases_unet", case)


@pytest.mark.parametrize("case", case_names("cases_conditioning"))
def test_conditioning(inside: Inside, case: str) -> None:
    inside.run("cases_conditioning", case)


@pytest.mark.parametrize("case", case_names("cases_regions"))
def test_regions(inside: Inside, case: str) -> None:
    inside.run("cases_regions", case)


@pytest.mark.parametrize("case", case_names("cases_inpaint"))
def test_inpaint(inside: Inside, case: str) -> None:
    inside.run("cases_inpaint", case)


@pytest.mark.parametrize("case", case_names("cases_host"))
def test_host(inside: Inside, case: str) -> None:
    inside.run("cases_host", case)


@pytest.mark.parametrize("case", case_names("cases_patches"))
def test_patches(inside: Inside, case: str) -> None:
    inside.run("cases_patches", case)


@pytest.mark.parametrize("case", case_names("cases_transformers"))
def test_transformers(inside: Inside, case: str) -> None:
    if inside.run("cases_transformers", case) == "absent":
        pytest.skip("this version of ComfyUI does not have the model")


@pytest.mark.parametrize("case", case_names("cases_words"))
def test_words(inside: Inside, case: str) -> None:
    if inside.run("cases_words", case) == "absent":
        pytest.skip("this version of ComfyUI does not have the model")


@pytest.mark.parametrize("case", case_names("cases_trouble"))
def test_trouble(inside: Inside, case: str) -> None:
    inside.run("cases_trouble", case)


@pytest.mark.parametrize("case", case_names("cases_nodes"))
def test_nodes(inside: Inside, case: str) -> None:
    inside.run("cases_nodes", case)
