// Closes an open menu on Escape and on a click elsewhere, and opens it upwards where there is no room below.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

// A menu in a list gets its entries when it opens: those of the template that it names, below the row's own address.
const fill = (menu) => {
  if (!menu.dataset.menu || menu.querySelector("[data-menu-items]")) return;
  menu.append(document.getElementById(menu.dataset.menu).content.cloneNode(true));
  const base = menu.closest("tr").querySelector("a").href;
  for (const entry of menu.querySelectorAll("[data-menu-items] a")) entry.href = base + entry.getAttribute("href");
};

// Arrow keys go through the entries of an open menu, as in every other menu.
document.addEventListener("keydown", (event) => {
  const menu = event.target.closest("details[data-menu]");
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (!menu || !(event.key in steps)) return;
  event.preventDefault();
  fill(menu);
  menu.open = true;
  const entries = [...menu.querySelectorAll("[data-menu-items] a, [data-menu-items] button")];
  const place = entries.indexOf(document.activeElement);
  const next = place < 0 && steps[event.key] < 0 ? entries.length - 1 : place + steps[event.key];
  entries[(next + entries.length) % entries.length].focus();
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
    fill(menu);
    menu.classList.remove("menu-up");
    const items = menu.querySelector("[data-menu-items]").getBoundingClientRect();
    const height = items.height;
    const top = menu.getBoundingClientRect().top;
    menu.classList.toggle("menu-up", items.bottom > window.innerHeight && top > height);
  },
  true,
);
