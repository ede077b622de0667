// "Send mask to inpaint": go to img2img, "Inpaint upload", and hand the arguments on as they are.
function daam_lens_to_inpaint() {
    switch_to_img2img_tab(4);
    return Array.from(arguments);
}
