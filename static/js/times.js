// Gives each time a tooltip with its exact value, in UTC and in local time.
(() => {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const add = () => {
    for (const time of document.querySelectorAll("time:not([title])")) {
      const utc = time.dateTime.replace("T", " ").replace("Z", " UTC");
      time.title = `${utc} · ${format.format(new Date(time.dateTime))} local time`;
    }
  };
  document.addEventListener("htmx:afterSettle", add);
  add();
})();
