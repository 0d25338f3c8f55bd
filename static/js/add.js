// Puts an endpoint that the server has added to the text, with comments and order as they were, into the editor. Where
// that did not come about, it is told below the endpoint's row, whose button stays.
(() => {
  const source = document.querySelector("textarea[data-editor]");
  const answer = document.getElementById("added");
  if (!source || !answer) return;
  let sent = "";

  const rowOf = (endpoint) =>
    [...document.querySelectorAll("#impact button[name=add]")].find(({ value }) => value === endpoint)?.closest("tr");
  const notice = (name) => document.querySelector(`template[data-not-added="${name}"]`).content.cloneNode(true);

  const tell = (endpoint, told) => {
    const row = rowOf(endpoint);
    if (!row) return;
    const below = document.createElement("tr");
    below.dataset.told = "";
    const cell = below.insertCell();
    cell.colSpan = row.cells.length;
    cell.append(told);
    row.after(below);
  };

  document.addEventListener("htmx:beforeRequest", ({ detail }) => {
    if (detail.target !== answer) return;
    sent = source.value;
    const below = rowOf(detail.elt.value)?.nextElementSibling;
    if (below?.matches("[data-told]")) below.remove();
  });

  document.addEventListener("htmx:afterRequest", ({ detail }) => {
    if (detail.target !== answer) return;
    const changed = answer.querySelector("textarea");
    const refusal = answer.querySelector("[data-refusal]");
    answer.replaceChildren();
    const endpoint = detail.requestConfig.elt.value;
    if (refusal) return tell(endpoint, refusal);
    if (!changed) return tell(endpoint, notice("failed"));
    // What was written meanwhile is not in it.
    if (source.value !== sent) return tell(endpoint, notice("outdated"));
    source.value = changed.value;
    source.dispatchEvent(new Event("input", { bubbles: true }));
  });
})();
