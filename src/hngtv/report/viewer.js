"use strict";
// Without this file the slices are a strip to scroll through, all layers shown but the gates.
for (const viewer of document.querySelectorAll(".viewer:not(.live)")) {
  const slider = viewer.querySelector("input");
  const stage = viewer.querySelector(".slices");
  const slices = [...viewer.querySelectorAll(".slice")];
  const show = (number) => {
    slider.value = number; // the slider keeps it in its range
    slices.forEach((slice, place) => slice.classList.toggle("on", place === Number(slider.value)));
    slider.setAttribute("aria-valuetext", slices[slider.value].querySelector("figcaption").textContent);
  };
  slider.addEventListener("input", () => show(slider.value));
  for (const button of viewer.querySelectorAll("button")) {
    button.disabled = false;
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", shown);
      for (const part of stage.querySelectorAll(`[data-layer="${button.dataset.layer}"]`)) part.classList.toggle("off", !shown);
    });
  }
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, value: Number(slider.value) };
    stage.setPointerCapture(event.pointerId);
    slider.focus({ preventScroll: true }); // then the arrow keys move it
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (drag) show(drag.value + Math.round((event.clientX - drag.x) / 12));
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { drag = null; });
  // The wheel turns pages only after a click into the picture: else it would stop the page from scrolling.
  stage.addEventListener("wheel", (event) => {
    if (document.activeElement !== slider) return;
    event.preventDefault();
    show(Number(slider.value) + Math.sign(event.deltaY));
  }, { passive: false });
  slider.hidden = false;
  viewer.classList.add("live");
  show(Number(viewer.dataset.first));
}
