// <label data-tick-all="name" hidden> ticks and unticks every checkbox of that name on the page.
const show = () => document.querySelectorAll("[data-tick-all]").forEach((label) => { label.hidden = false; });
document.addEventListener("change", (event) => {
  const name = event.target.closest("[data-tick-all]")?.dataset.tickAll;
  if (!name) return;
  document.querySelectorAll(`input[type=checkbox][name="${name}"]`).forEach((box) => { box.checked = event.target.checked; });
});
document.addEventListener("htmx:afterSettle", show);
show();
