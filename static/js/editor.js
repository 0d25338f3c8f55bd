// Turns the textarea marked data-editor into Ace; without this script the textarea works as it is.
(() => {
  const source = document.querySelector("textarea[data-editor]");
  if (!source || !window.ace) return;
  ace.config.set("useStrictCSP", true);
  ace.config.set("basePath", source.dataset.editor);

  const surface = document.createElement("div");
  surface.className = "editor-surface";
  source.after(surface);
  const hasFocus = document.activeElement === source;
  source.hidden = true;

  ace.config.set("loadWorkerFromBlob", false);
  const editor = ace.edit(surface, {
    useWorker: false, mode: "ace/mode/yaml", showPrintMargin: false, tabSize: 2, useSoftTabs: true, fontSize: 13,
  });
  editor.session.setValue(source.value);
  editor.textInput.getElement().setAttribute("aria-label", source.labels[0].textContent);

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const followTheme = () => editor.setTheme(dark.matches ? "ace/theme/github_dark" : "ace/theme/github_light_default");
  dark.addEventListener("change", followTheme);
  followTheme();

  document.querySelector("[data-editor-hint]").hidden = false;
  if (hasFocus) editor.focus();

  const form = source.form;
  editor.commands.addCommand({
    name: "save",
    bindKey: { win: "Ctrl-S", mac: "Command-S" },
    exec: () => form.requestSubmit(form.querySelector("button.button-primary")),
  });

  // Escape lets the next Tab leave the editor, so that the keyboard is not caught in it.
  editor.commands.addCommand({
    name: "leave",
    bindKey: "Esc",
    exec: () => { editor.commands.removeCommand("indent"); editor.commands.removeCommand("outdent"); },
  });

  editor.session.on("change", () => {
    source.value = editor.getValue();
    source.dispatchEvent(new Event("input", { bubbles: true }));
  });

  // Another script has changed the text.
  source.addEventListener("input", () => {
    if (source.value !== editor.getValue()) editor.setValue(source.value, 1);
  });

  // Leaving the page would lose the text.
  const saved = "unsaved" in source.dataset ? null : source.value;
  let isSent = false;
  form.addEventListener("submit", () => { isSent = true; });
  window.addEventListener("pageshow", () => { isSent = false; });
  window.addEventListener("beforeunload", (event) => {
    if (!isSent && source.value !== saved) event.preventDefault();
  });

  const annotate = () => {
    const panel = document.querySelector("[data-annotations]");
    if (panel) editor.session.setAnnotations(JSON.parse(panel.dataset.annotations));
  };
  document.addEventListener("htmx:afterSwap", annotate);
  annotate();

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-line]");
    if (!link) return;
    event.preventDefault();
    editor.gotoLine(Number(link.dataset.line), Number(link.dataset.column) - 1, false);
    editor.focus();
  });
})();
