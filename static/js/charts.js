// Shows the value of the column under the pointer, or of the one chosen with the arrow keys, below its chart.
const enable = (chart) => {
  const areas = [...chart.querySelectorAll(".chart-area")];
  const output = chart.querySelector("[data-chart-value]");
  let chosen = areas.length;

  const show = (number) => {
    areas[chosen]?.classList.remove("chosen");
    chosen = Math.max(0, Math.min(areas.length - 1, number));
    areas[chosen]?.classList.add("chosen");
    output.value = areas[chosen]?.textContent.trim() ?? "";
  };
  const moves = { ArrowLeft: () => chosen - 1, ArrowRight: () => chosen + 1, Home: () => 0, End: () => areas.length - 1 };

  chart.tabIndex = 0;
  chart.addEventListener("focus", () => show(areas.length - 1));
  chart.addEventListener("pointerover", ({ target }) => {
    if (areas.includes(target)) show(areas.indexOf(target));
  });
  chart.addEventListener("keydown", (event) => {
    if (!moves[event.key]) return;
    event.preventDefault();
    show(moves[event.key]());
  });
};

document.addEventListener("htmx:load", ({ target }) => target.querySelectorAll("[data-chart]").forEach(enable));
