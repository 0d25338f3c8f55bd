// A new place that holds all that stands below `head`. Moving what has the focus would take the focus from it, so a
// place that is there already is used again.
const below = (head) => {
  const place = document.createElement("div");
  place.dataset.notice = "";
  while (head.nextSibling) place.append(head.nextSibling);
  head.after(place);
  return place;
};

// What could not be had in time is told where it would stand: the tabs or the heading of its part stay, and the tab
// that was asked for is the marked one.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (detail.xhr.status !== 503) return;
  const head = detail.target.querySelector(":scope > nav, :scope > .card-head, :scope > h2");
  if (!head) return;
  const asked = detail.requestConfig.elt;
  if (head.contains(asked)) {
    for (const tab of head.querySelectorAll("[aria-current]")) tab.removeAttribute("aria-current");
    asked.setAttribute("aria-current", "true");
  }
  detail.target = head.parentElement.querySelector(":scope > [data-notice]") || below(head);
});

// The button is gone once the part has come; whoever pressed it by keyboard goes on in the part.
document.addEventListener("htmx:afterSettle", ({ detail }) => {
  const { elt, target } = detail.requestConfig;
  if (!elt.matches("[data-try-again]") || document.activeElement !== document.body) return;
  const part = document.getElementById(target.id) || document.getElementById("content");
  part.tabIndex = -1;
  part.focus({ preventScroll: true });
});
