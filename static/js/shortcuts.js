// Quick search (Ctrl-K, Cmd-K or /), "g" and a key to open a page of the sidebar, and ? for a list of all shortcuts.
(() => {
  const search = document.getElementById("quick-search");
  const list = document.getElementById("shortcuts");
  if (!search) return;
  const form = search.querySelector("form");
  const input = form.querySelector("input");
  const results = document.getElementById("quick-search-results");
  const status = search.querySelector("[data-quick-search-status]");
  const inSidebar = document.querySelector("form[data-quick-search] input");

  const open = (dialog) => {
    if (document.querySelector("dialog[open]")) return;
    dialog.showModal();
  };
  const openSearch = () => {
    open(search);
    input.focus();
    input.select();
  };

  inSidebar.form.querySelector("kbd").hidden = false;
  inSidebar.addEventListener("click", openSearch);

  // Single keys can be switched off: speech input and unsteady hands press them by accident.
  const singleKeys = list.querySelector("[data-single-keys]");
  singleKeys.checked = localStorage.getItem("single-keys") !== "off";
  singleKeys.addEventListener("change", () => localStorage.setItem("single-keys", singleKeys.checked ? "on" : "off"));

  const isTyping = (target) => target.closest("input, textarea, select, [contenteditable], .ace_editor");
  let pressedG = 0;

  const run = (event) => {
    const isSecond = event.timeStamp - pressedG < 1500;
    pressedG = event.key === "g" && !isSecond ? event.timeStamp : 0;
    if (event.key === "/") return openSearch;
    if (event.key === "?") return () => open(list);
    const entry = isSecond && document.querySelector(`[data-shortcut="${CSS.escape(event.key)}"]`);
    return entry && (() => entry.click());
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.altKey) return;
    const hasModifier = event.ctrlKey || event.metaKey;
    if (hasModifier && event.key.toLowerCase() === "k" && !event.target.closest("textarea, .ace_editor")) {
      event.preventDefault();
      return openSearch();
    }
    if (hasModifier || !singleKeys.checked || isTyping(event.target) || document.querySelector("dialog[open]")) return;
    const action = run(event);
    if (!action) return;
    event.preventDefault();
    action();
  });

  // Arrow keys go through the results, from the field and back to it; other keys continue the search.
  search.addEventListener("keydown", (event) => {
    const stops = [input, ...results.querySelectorAll("[data-result]")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const place = stops.indexOf(document.activeElement);
    if (event.key === "Escape") {
      // Chromium would only clear the field.
      event.preventDefault();
      input.blur();
      search.close();
    } else if (step) {
      event.preventDefault();
      stops[(place + step + stops.length) % stops.length].focus();
    } else if (place > 0 && event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey) {
      input.focus();
    }
  });

  // Enter opens the first result once the results are those of the text, and else the page of results.
  form.addEventListener("submit", (event) => {
    const first = results.querySelector("[data-result]");
    if (!first || results.querySelector("[data-found]").dataset.found !== input.value.trim()) return;
    event.preventDefault();
    first.click();
  });

  const announce = () => { status.textContent = results.querySelector("[data-summary]")?.textContent.trim() ?? ""; };
  results.addEventListener("htmx:afterSwap", announce);
  for (const name of ["responseError", "sendError", "timeout"]) {
    form.addEventListener(`htmx:${name}`, () => {
      results.replaceChildren(search.querySelector("template[data-quick-search-failed]").content.cloneNode(true));
      announce();
    });
  }

  results.addEventListener("click", ({ target }) => {
    if (!target.closest("[data-search-again]")) return;
    input.focus();
    input.dispatchEvent(new Event("input"));
  });

  // A click beside a dialog closes it, too.
  for (const dialog of [search, list]) {
    dialog.addEventListener("click", ({ target }) => {
      if (target === dialog || target.closest("[data-close]")) dialog.close();
    });
  }
})();
