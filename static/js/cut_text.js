// Shows the whole text of a list's cell in a tooltip while the column is too narrow for it.
document.addEventListener("pointerover", ({ target }) => {
  const cell = target.closest("[data-cut] td");
  if (!cell) return;
  const isCut = [cell, ...cell.querySelectorAll("*")].some((part) => part.scrollWidth > part.clientWidth + 1 &&
    getComputedStyle(part).textOverflow === "ellipsis");
  if (isCut && !cell.title) cell.title = cell.innerText.replace(/\s+/g, " ").trim();
  else if (!isCut) cell.removeAttribute("title");
});
