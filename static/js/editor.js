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

  // The style sheet has the colors.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const followTheme = () => editor.setTheme({ cssClass: "editor-theme", isDark: dark.matches });
  dark.addEventListener("change", followTheme);
  followTheme();

  // The words that can be completed, by the key whose values they are, and "" for the keys. Requested when first needed.
  let words = null;
  const requestWords = () => {
    words ??= fetch(source.dataset.words)
      .then((response) => (response.ok ? response.json() : Promise.reject(new Error(response.statusText))))
      .catch(() => { words = null; return {}; });
    return words;
  };
  const keyAt = (row, column) => {
    const before = editor.session.getLine(row).slice(0, column);
    if (/^[\w-]*$/.test(before)) return "";
    for (let at = row; at >= 0; at--) {
      const found = /^\s*([\w-]+):(?:\s|$)/.exec(at === row ? before : editor.session.getLine(at));
      if (found) return found[1];
    }
    return "";
  };
  const { Autocomplete } = ace.require("ace/autocomplete");
  editor.setOptions({ enableBasicAutocompletion: true, enableLiveAutocompletion: true, liveAutocompletionThreshold: 2 });
  editor.completers = [{
    identifierRegexps: [/[\w.*:-]/],
    async getCompletions(_editor, _session, { row, column }, prefix, callback) {
      const key = source.dataset.wordsOf ?? keyAt(row, column);
      const known = (await requestWords())[key] ?? [];
      callback(null, known.filter((word) => word !== prefix).map((value) => ({ value, meta: key || "key" })));
    },
  }];
  const completer = Autocomplete.for(editor);
  completer.exactMatch = true;
  // Enter in a list that opened while typing ends the line, unless an entry was chosen with the arrow keys.
  Object.defineProperty(completer, "autoSelect", { get: () => !completer.autoShown, set() {} });

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
    if (event.target.closest(`a[href="#${source.id}"]`)) editor.focus();
    const link = event.target.closest("[data-line]");
    if (!link) return;
    event.preventDefault();
    editor.gotoLine(Number(link.dataset.line), Number(link.dataset.column) - 1, false);
    editor.focus();
  });
})();
