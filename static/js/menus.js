// Closes an open menu on Escape and on a click elsewhere, and opens it upwards where there is no room below.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

document.addEventListener(
  "toggle",
  (event) => {
    const menu = event.target;
    if (!(menu instanceof HTMLDetailsElement) || !menu.matches("[data-menu]") || !menu.open) return;
    menu.classList.remove("menu-up");
    const items = menu.querySelector("[data-menu-items]").getBoundingClientRect();
    const height = items.height;
    const top = menu.getBoundingClientRect().top;
    menu.classList.toggle("menu-up", items.bottom > window.innerHeight && top > height);
  },
  true,
);
