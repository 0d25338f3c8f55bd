// A new element that holds everything below `head`. Moving a focused element would lose the focus, so an existing
// element is reused.
const below = (head) => {
  const place = document.createElement("div");
  place.dataset.notice = "";
  while (head.nextSibling) place.append(head.nextSibling);
  head.after(place);
  return place;
};

// A part that timed out shows the notice in its own place: its tabs or heading stay, and the requested tab is marked.
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

// The button disappears once the part has loaded; move the focus of a keyboard user to the part.
document.addEventListener("htmx:afterSettle", ({ detail }) => {
  const { elt, target } = detail.requestConfig;
  if (!elt.matches("[data-try-again]") || document.activeElement !== document.body) return;
  const part = document.getElementById(target.id) || document.getElementById("content");
  part.tabIndex = -1;
  part.focus({ preventScroll: true });
});
