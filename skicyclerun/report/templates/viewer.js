"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  let photos = [];
  let at = 0;

  const find = (name) => viewer.querySelector(`[data-${name}]`);

  function pictureOf(link) {
    const small = link.querySelector("img");
    if (link.dataset.kind === "movie") {
      const film = document.createElement("video");
      film.controls = true;
      film.src = link.href;
      film.setAttribute("aria-label", link.textContent.trim() || "Film");
      return film;
    }
    const picture = document.createElement("img");
    picture.alt = small ? small.alt : "";
    picture.src = link.dataset.kind === "picture" || !small ? link.href : small.src;
    picture.addEventListener("error", () => small && picture.src !== small.src && (picture.src = small.src), { once: true });
    return picture;
  }

  function show(index) {
    at = (index + photos.length) % photos.length;
    const photo = photos[at];
    const link = photo.querySelector("a[data-kind]");
    find("large").replaceChildren(pictureOf(link));
    find("words").replaceChildren(...photo.querySelector("[data-caption]").cloneNode(true).childNodes);
    find("count").textContent = photos.length > 1 ? `${at + 1} of ${photos.length}` : "";
    find("open").href = link.href;
    for (const button of viewer.querySelectorAll("[data-step]")) button.hidden = photos.length < 2;
    if (photo.id) history.replaceState(null, "", `#${photo.id}`);
  }

  function open(photo) {
    photos = [...photo.closest("[data-gallery]").querySelectorAll("[data-photo]")];
    show(photos.indexOf(photo));
    if (!viewer.open) viewer.showModal();
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-photo] a[data-kind]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    open(link.closest("[data-photo]"));
  });

  viewer.addEventListener("click", (event) => {
    const step = event.target.closest("[data-step]");
    if (step) show(at + Number(step.dataset.step));
    else if (event.target === viewer || event.target.closest("[data-close]") || event.target.matches("[data-large]")) viewer.close();
  });

  viewer.addEventListener("keydown", (event) => {
    if (event.target.tagName === "VIDEO" || photos.length < 2) return;
    const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: photos.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(steps[event.key]);
  });

  viewer.addEventListener("close", () => {
    find("large").replaceChildren();
    if (location.hash) history.replaceState(null, "", location.pathname);
    photos[at]?.querySelector("a[data-kind]").focus();
  });

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      const copied = navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = await copied.then(() => "Copied", () => "Could not");
    });
  }

  const asked = /^#photo-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
  if (asked) open(asked);
})();
