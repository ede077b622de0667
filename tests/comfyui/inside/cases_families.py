"""Every class of `comfy.supported_models` samples with Record exactly as without; maps only where they are proved."""

from __future__ import annotations

import inspect
from typing import Any

import families
import graphs
from families import GROUPS, check
from families_films import LEFT_OUT, NOT_SAMPLED, SEVERAL_TENSORS


def case_every_class_is_built_or_left_out_with_a_reason() -> Any:
    built = [family.name for group in GROUPS.values() for family in group]
    assert len(built) == len(set(built)), "a class is built twice"
    assert not set(built) & set(LEFT_OUT), "a class is built and left out"
    here = families.of_the_host()
    assert here <= {*built, *LEFT_OUT}, f"classes that nobody tries: {sorted(here - {*built, *LEFT_OUT})}"
    assert len(here & set(built)) >= 40, "too few classes are built"
    for group in GROUPS:
        assert group in globals()[f"case_{group}"].__code__.co_consts, f"no case checks {group}"
    return None


def case_what_is_left_out_could_not_be_built() -> Any:
    """A class whose reason no longer holds has to be built."""
    here = families.of_the_host() & set(LEFT_OUT)
    for name in sorted(here):
        network = families.weightless(name)
        if LEFT_OUT[name] == NOT_SAMPLED:
            times = {"t", "timestep", "timesteps", "sigma"} & set(inspect.signature(network.forward).parameters)
            assert not times, f"{name} can be sampled: its network takes {times}"
        else:
            assert sum(weight.numel() for weight in network.parameters()) > 10**9, f"{name} is small enough to be built"
    return None if here else "absent"


def case_latents_of_several_tensors() -> Any:
    """A latent of picture and sound (or camera) is no tensor: its maps, or the sentence that names the network, are found by
    it, and by the picture that another node takes out of it."""
    here = [family for (family,) in SEVERAL_TENSORS.values() if family.name in families.of_the_host()]
    for family in here:
        model = families.build(family)
        latents = families.sampling(family, model)(graphs.listen(model, None)[0])
        picture = latents.unbind()[0]
        if family.maps is None:
            name = type(model.model.diffusion_model).__name__
            assert name in graphs.refusal(latents) and name in graphs.refusal(picture), graphs.refusal(latents)
        else:
            assert "its words are not known" in graphs.refusal(latents) and "its words are not known" in graphs.refusal(picture)
            maps = graphs.runs.RECORDINGS.recorded(picture[0])
            assert (maps.num_frames, maps.size) == (family.frames, (12 * 32, 20 * 32)), (maps.num_frames, maps.size)
    return None if here else "absent"


# -- one case a family ----------------------------------------------------------------------------------------------


def case_stable_diffusion_1() -> Any:
    return check("stable_diffusion_1")


def case_stable_diffusion_2() -> Any:
    return check("stable_diffusion_2")


def case_stable_diffusion_xl() -> Any:
    return check("stable_diffusion_xl")


def case_stable_video_diffusion() -> Any:
    return check("stable_video_diffusion")


def case_sd3() -> Any:
    return check("sd3")


def case_flux() -> Any:
    return check("flux")


def case_flux2() -> Any:
    return check("flux2")


def case_longcat_image() -> Any:
    return check("longcat_image")


def case_chroma() -> Any:
    return check("chroma")


def case_chroma_radiance() -> Any:
    return check("chroma_radiance")


def case_qwen_image() -> Any:
    return check("qwen_image")


def case_mage_flow() -> Any:
    return check("mage_flow")


def case_lumina2() -> Any:
    return check("lumina2")


def case_z_image() -> Any:
    return check("z_image")


def case_auraflow() -> Any:
    return check("auraflow")


def case_pixart() -> Any:
    return check("pixart")


def case_hunyuan_dit() -> Any:
    return check("hunyuan_dit")


def case_stable_cascade() -> Any:
    return check("stable_cascade")


def case_hidream() -> Any:
    return check("hidream")


def case_ideogram() -> Any:
    return check("ideogram")


def case_krea2() -> Any:
    return check("krea2")


def case_lens() -> Any:
    return check("lens")


def case_ernie_image() -> Any:
    return check("ernie_image")


def case_joyimage() -> Any:
    return check("joyimage")


def case_omnigen2() -> Any:
    return check("omnigen2")


def case_boogu() -> Any:
    return check("boogu")


def case_pixeldit() -> Any:
    return check("pixeldit")


def case_wan() -> Any:
    return check("wan")


def case_wan_image_to_video() -> Any:
    return check("wan_image_to_video")


def case_wan_causal() -> Any:
    return check("wan_causal")


def case_wan_camera() -> Any:
    return check("wan_camera")


def case_wan_vace() -> Any:
    return check("wan_vace")


def case_wan_humo() -> Any:
    return check("wan_humo")


def case_wan_speech() -> Any:
    return check("wan_speech")


def case_wan_animate() -> Any:
    return check("wan_animate")


def case_wan_scail() -> Any:
    return check("wan_scail")


def case_wan_dancer() -> Any:
    return check("wan_dancer")


def case_hunyuan_video() -> Any:
    return check("hunyuan_video")


def case_hunyuan_video_15() -> Any:
    return check("hunyuan_video_15")


def case_hunyuan_image() -> Any:
    return check("hunyuan_image")


def case_cosmos() -> Any:
    return check("cosmos")


def case_cosmos_predict2() -> Any:
    return check("cosmos_predict2")


def case_anima() -> Any:
    return check("anima")


def case_kandinsky5() -> Any:
    return check("kandinsky5")


def case_ltxv() -> Any:
    return check("ltxv")


def case_mochi() -> Any:
    return check("mochi")


def case_cogvideox() -> Any:
    return check("cogvideox")


def case_seedvr() -> Any:
    return check("seedvr")


def case_hidream_o1() -> Any:
    return check("hidream_o1")


def case_stable_audio() -> Any:
    return check("stable_audio")


def case_ace_step() -> Any:
    return check("ace_step")


def case_hunyuan_3d() -> Any:
    return check("hunyuan_3d")


def case_trellis() -> Any:
    return check("trellis")


def case_triposplat() -> Any:
    return check("triposplat")


def case_ltxav() -> Any:
    return check("ltxav")


def case_minimax_h3() -> Any:
    return check("minimax_h3")
