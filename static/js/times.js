// Adds the local time to the tooltip of each time, which is in UTC.
(() => {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const add = () => {
    for (const time of document.querySelectorAll("time[datetime]:not([data-local])")) {
      time.dataset.local = "";
      time.title = `${time.title || time.textContent.trim()} · ${format.format(new Date(time.dateTime))} local time`;
    }
  };
  document.addEventListener("htmx:afterSettle", add);
  add();
})();
