// Puts the text to which the server has added an endpoint, with its comments and order kept, into the editor. If that
// fails, a notice below the endpoint's row says why, and the row keeps its button.
(() => {
  const source = document.querySelector("textarea[data-editor]");
  const answer = document.getElementById("added");
  if (!source || !answer) return;
  let sent = "";

  const rowOf = (endpoint) =>
    [...document.querySelectorAll("#impact button[name=add]")].find(({ value }) => value === endpoint)?.closest("tr");
  const template = (name) => document.querySelector(`template[data-not-added="${name}"]`).content.cloneNode(true);

  const showNotice = (endpoint, notice) => {
    const row = rowOf(endpoint);
    if (!row) return;
    const below = document.createElement("tr");
    below.dataset.noticeRow = "";
    const cell = below.insertCell();
    cell.colSpan = row.cells.length;
    cell.append(notice);
    row.after(below);
  };

  document.addEventListener("htmx:beforeRequest", ({ detail }) => {
    if (detail.target !== answer) return;
    sent = detail.requestConfig.parameters.text;
    const below = rowOf(detail.elt.value)?.nextElementSibling;
    if (below?.matches("[data-notice-row]")) below.remove();
  });

  document.addEventListener("htmx:afterRequest", ({ detail }) => {
    if (detail.target !== answer) return;
    const changed = answer.querySelector("textarea");
    const refusal = answer.querySelector("[data-refusal]");
    answer.replaceChildren();
    // requests.js says so.
    if (detail.xhr.status === 401) return;
    const endpoint = detail.requestConfig.elt.value;
    if (refusal) return showNotice(endpoint, refusal);
    if (!changed) return showNotice(endpoint, template("failed"));
    // The server's text lacks what was typed since the request was sent.
    if (source.value !== sent) return showNotice(endpoint, template("outdated"));
    source.value = changed.value;
    source.dispatchEvent(new Event("input", { bubbles: true }));
  });
})();
