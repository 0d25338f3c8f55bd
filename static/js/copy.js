// Copies the text of the element that data-copy names. Where the browser does not allow that, as without https, the text
// is selected instead.
document.addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const isNumbered = source.classList.contains("numbered");
  const text = isNumbered ? [...source.children].map((line) => line.textContent).join("\n") : source.textContent.trim();
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Press Ctrl-C";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
});
